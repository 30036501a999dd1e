"""Makes folders of encoders in the shapes of published models, filled with random values, to measure speed and memory.

    pip install numpy
    python ediffi-encoders/comparison/make_models.py FOLDER [t5-xxl] [t5-250m] [clip-l]

The files are written tensor by tensor, so the 9.5 GB of t5-xxl need little memory. Vocabularies are the real ones of
tests/fixtures/tokenizers.
"""

import functools
import gzip
import json
import sys
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent.parent / "tests/fixtures/tokenizers"
sys.path.insert(0, str(FIXTURES.parent))
import t5_model

BLOCK = np.random.default_rng(1).standard_normal(1 << 24, dtype=np.float32)


@functools.cache
def block(scale, kind):
    """The bytes of the random numbers at one scale."""
    scaled = BLOCK * np.float32(scale)
    return (scaled.view(np.uint32) >> 16).astype(np.uint16).tobytes() if kind == "BF16" else scaled.tobytes()


def parts(shape, kind, name):
    """Norms are one, biases zero, weights of unit gain. One block of random numbers, over and over, is random enough."""
    size = 2 if kind == "BF16" else 4
    count = size * int(np.prod(shape))
    if len(shape) < 2:
        one = np.float32(1.0 if "weight" in name and "norm" in name else 0.0).tobytes()
        yield one[4 - size:] * (count // size)
        return
    small = "embed" in name or "shared" in name
    numbers = block(0.02 if small else float(np.prod(shape[1:])) ** -0.5, kind)
    for start in range(0, count, len(numbers)):
        yield numbers[: min(len(numbers), count - start)]


def write(path, tensors, kind):
    """A safetensors file: length of the header, header, values."""
    size, offset, header = (2 if kind == "BF16" else 4), 0, {"__metadata__": {"format": "pt"}}
    for name, shape in tensors:
        end = offset + size * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors:
            file.writelines(parts(shape, kind, name))


def t5(folder, kind, width, inner, heads, layers, vocabulary=32128):
    tensors = [("shared.weight", (vocabulary, width))]
    for index in range(layers):
        attention, forward = (f"encoder.block.{index}.layer.{part}" for part in (0, 1))
        tensors += [(f"{attention}.SelfAttention.{name}.weight", (heads * 64, width)) for name in "qkv"]
        tensors += [(f"{attention}.SelfAttention.o.weight", (width, heads * 64))]
        if index == 0:
            tensors += [(f"{attention}.SelfAttention.relative_attention_bias.weight", (32, heads))]
        tensors += [(f"{attention}.layer_norm.weight", (width,)), (f"{forward}.layer_norm.weight", (width,))]
        tensors += [(f"{forward}.DenseReluDense.{name}.weight", (inner, width)) for name in ("wi_0", "wi_1")]
        tensors += [(f"{forward}.DenseReluDense.wo.weight", (width, inner))]
    tensors += [("encoder.final_layer_norm.weight", (width,))]
    config = dict(
        architectures=["T5EncoderModel"], model_type="t5", vocab_size=vocabulary, d_model=width, d_kv=64, d_ff=inner,
        num_layers=layers, num_heads=heads, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        is_encoder_decoder=True,
    )
    save(folder, config, tensors, kind)
    (folder / "spiece.model").write_bytes(t5_model.model())


def clip_vocabulary():
    """CLIP's own: the ids of its words, and the text of its merges."""
    merges = gzip.decompress((FIXTURES / "clip.merges.txt.gz").read_bytes()).decode()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    words = letters + [a + "</w>" for a in letters] + [m.replace(" ", "") for m in merges.split("\n")[1:] if m]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}, merges


def clip_l(folder, kind):
    def layers(prefix, width, count):
        for index in range(count):
            layer = f"{prefix}.encoder.layers.{index}"
            linear = [(f"self_attn.{name}_proj", width, width) for name in "qkv"] + [("self_attn.out_proj", width, width)]
            for name, inputs, outputs in linear + [("mlp.fc1", width, 4 * width), ("mlp.fc2", 4 * width, width)]:
                yield from [(f"{layer}.{name}.weight", (outputs, inputs)), (f"{layer}.{name}.bias", (outputs,))]
            yield from norm(f"{layer}.layer_norm1", width)
            yield from norm(f"{layer}.layer_norm2", width)

    def norm(name, width):
        return [(f"{name}.weight", (width,)), (f"{name}.bias", (width,))]

    text, vision = "text_model", "vision_model"
    tensors = [
        (f"{text}.embeddings.token_embedding.weight", (49408, 768)),
        (f"{text}.embeddings.position_embedding.weight", (77, 768)),
        *layers(text, 768, 12), *norm(f"{text}.final_layer_norm", 768), ("text_projection.weight", (768, 768)),
        (f"{vision}.embeddings.class_embedding", (1024,)),
        (f"{vision}.embeddings.patch_embedding.weight", (1024, 3, 14, 14)),
        (f"{vision}.embeddings.position_embedding.weight", (257, 1024)), *norm(f"{vision}.pre_layrnorm", 1024),
        *layers(vision, 1024, 24), *norm(f"{vision}.post_layernorm", 1024), ("visual_projection.weight", (768, 1024)),
        ("logit_scale", ()),
    ]
    half = dict(hidden_act="quick_gelu", projection_dim=768)
    config = dict(
        architectures=["CLIPModel"], model_type="clip", projection_dim=768,
        text_config=dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12,
                         bos_token_id=49406, eos_token_id=49407, pad_token_id=49407, **half),
        vision_config=dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24,
                           image_size=224, patch_size=14, **half),
    )
    save(folder, config, tensors, kind)
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges)


def save(folder, config, tensors, kind):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write(folder / "model.safetensors", tensors, kind)
    print(f"{folder}: {sum(int(np.prod(shape)) for _, shape in tensors) / 1e9:.3f} billion values in {kind}")


if __name__ == "__main__":
    root, models = Path(sys.argv[1]), sys.argv[2:] or ["t5-xxl", "t5-250m", "clip-l"]
    if "t5-xxl" in models:
        t5(root / "t5-xxl", "BF16", 4096, 10240, 64, 24)
    if "t5-250m" in models:
        # The layers of T5 v1.1 large, fewer of them.
        t5(root / "t5-250m", "F32", 1024, 2816, 16, 17)
    if "clip-l" in models:
        clip_l(root / "clip-l", "F32")
