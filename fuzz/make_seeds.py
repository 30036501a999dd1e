"""Makes the seeds of the fuzz targets, from what the repository ships and from fixtures of its tests: `python3 fuzz/make_seeds.py FOLDER`.

Nothing but Python's own library is needed. `cargo xtask fuzz` runs it.
"""

import base64
import gzip
import io
import json
import struct
import sys
import tarfile
import zlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SEEDS = Path(sys.argv[1])
CORE = "ediffi-core/tests/fixtures"
ENCODERS = "ediffi-encoders/tests/fixtures"


def read(path):
    return (ROOT / path).read_bytes()


def put(name, content):
    path = SEEDS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def unpacked(path):
    """The files of an archive, by name."""
    with tarfile.open(ROOT / path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


PICTURES = unpacked(f"{ENCODERS}/pictures/pictures.tar.gz")


# --- requests ---

KARRAS = {"karras": {"min": 0.002, "max": 80, "rho": 7}}
STYLE = {"values": "AACAPwAAAEA=", "clip": "clip", "fingerprint": "ab"}
REGIONS = [
    {"phrase": "red apple", "mask": "255*8 0*8", "weight": 2.0, "occurrence": {"nth": 1}, "sigma": [1, None]},
    {"phrase": "cat", "mask": "0*12 128 255*3", "occurrence": {"span": {"start": 18, "end": 21}}},
]
GUIDANCE = {"scale": 5.0, "interval": [0.1, 20], "thresholding": {"dynamic": {"percentile": 0.995, "cap": 2.0}}}
FULL = {
    "prompt": "a red apple and a cat", "negative_prompt": "blur", "truncate": True, "seed": 2**64 - 1, "images": 2, "width": 64,
    "height": 64, "last_stage": "base",
    "style": {
        "references": [
            {"image": base64.b64encode(PICTURES["palette.png"]).decode(), "weight": 2.0},
            {"embedding": STYLE},
        ],
        "strength": 0.7,
    },
    "canvas": {"width": 4, "height": 4, "regions": REGIONS, "strength": {"weight": 0.4}},
    "stages": {
        "base": {
            "steps": 5, "solver": {"heun": {"s_churn": 1}}, "schedule": KARRAS, "guidance": GUIDANCE, "guidance_scale": 3.0,
            "tiling": {"tile": 32, "overlap": 8},
        }
    },
}


def stages(**base):
    return {"prompt": "a cat", "stages": {"base": base}}


put("request/short", {"prompt": "a red apple left of a cat"})
put("request/full", FULL)
PIXELS = base64.b64encode(PICTURES["palette.png"]).decode()
MIXED = {
    "prompt": "a cat", "mix": [{"prompt": "a dog", "share": 0.5, "sigma": [1, None]}, {"prompt": "a fish", "share": 0.25}],
    "stage_prompts": {"sr256": {"prompt": "fur", "negative_prompt": "blur"}}, "near": {"seed": 7, "strength": 0.2},
}
put("request/mixed", MIXED)
put("request/jumps", {"prompt": "a cat", "edit": {"picture": PIXELS, "mask": PIXELS, "strength": 0.9, "jumps": {"length": 5, "count": 2}}})
put("request/unconditional", {"unconditional": True, "stages": {"sr256": {"schedule": "leading"}}})
put("request/many", {"prompt": "a cat", "images": 4096, "stages": {"base": {"steps": 1}, "sr256": {"steps": 1}}})
put("request/large", {"prompt": "a cat", "width": 16384, "height": 16384, "stages": {"base": {"schedule": {"preset": "smart27"}}}})
put("request/sde", stages(solver={"dpmpp-2m-sde": {"eta": 0.5}}, schedule={"custom": [80, 10, 1, 0]}))
put("request/deis", stages(solver={"tab-deis": {"order": 3}}, schedule={"deis": {"min": 0.002, "max": 80, "order": 6}}))
put("request/kutta", stages(solver="kutta3", schedule={"exponential": {"min": 0.002, "max": 80}}))

# --- prompts: some of them in a file; libFuzzer takes them apart and puts them together ---

texts = [row["text"] for row in json.loads(gzip.decompress(read(f"{ENCODERS}/tokenizers/expected.json.gz")))]
texts += [raw for raw, _ in json.loads(read(f"{CORE}/deepfloyd/captions.json"))]
texts = [text for text in texts if len(text.encode()) < 120]
for index in range(0, len(texts), 8):
    put(f"caption/{index // 8:02}", " ".join(texts[index : index + 8]))
put("caption/phrase", "a red apple, and a GREEN Apple\0green apple")
put("caption/normal", "un caf\u00e9\0cafe\u0301")
put("caption/links", "see https://example.com/a/b?c=1 &amp;amp; <b>#1</b> @me 1024x768 a@b.org ip 10.0.0.1 :) x.jpg")

# --- PNG files with a request ---


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


FORMS = {
    "itxt": lambda key, text: chunk(b"iTXt", key + b"\0\0\0\0\0" + text),
    "packed": lambda key, text: chunk(b"iTXt", key + b"\0\1\0\0\0" + zlib.compress(text)),
    "text": lambda key, text: chunk(b"tEXt", key + b"\0" + text),
    "ztxt": lambda key, text: chunk(b"zTXt", key + b"\0\0" + zlib.compress(text)),
}
MADE = {
    "precision": "f32", "encoders": "ab", "enlarger": "cd",
    "stages": {"base": {"digest": "ef", "settings": {"solver": "euler", "steps": 3, "schedule": KARRAS, "guidance": {"scale": 3.0}}}},
}
request = json.dumps(FULL)
whole = {"request": '{"prompt": "a cat", "seed": 3}', "seed": "3", "plan": "base: expert 0: step 1", "made": json.dumps(MADE)}
parted = {"parts": "2", "seed": "7", "request:2": request[100:], "request": request[:100]}
HEAD = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress(b"\0\1\2\0\3\4"))
END = chunk(b"IEND", b"")
for name, form in FORMS.items():
    before = b"".join(form(f"ediffi:{key}".encode(), text.encode()) for key, text in whole.items())
    behind = b"".join(form(f"ediffi:{key}".encode(), text.encode()) for key, text in parted.items())
    put(f"png/{name}", HEAD + before + PIXELS + END)
    put(f"png/{name}-behind", HEAD + PIXELS + behind + END)

# --- pictures and palettes ---

for name in [
    "clear.png", "cmyk.jpg", "deep.png", "grey-key.png", "grey.jpg", "palette.png", "progressive.jpg", "turned-6.jpg", "turned-png-5.png",
]:
    put(f"picture/{name}", PICTURES[name])
put("picture/ink.png", read("examples/style/ink.png"))
example = json.loads(read("examples/paint/regions.json"))["palette"]
entry = {"colour": [255, 0, 0], "phrase": "a", "weight": 2.0, "occurrence": {"nth": 2}, "sigma": [0, 9.5]}
every = {"entries": [entry], "background": [[0, 0, 0], [255, 255, 255]], "tolerance": 0}
red, blue, white = b"\xd6\x3c\x3c", b"\x3c\x5a\xd6", b"\xff\xff\xff"
put("palette/example", json.dumps(example).encode() + b"\0\x04" + (red * 2 + white * 2) * 2 + (white * 2 + blue * 2) * 2)
put("palette/every", json.dumps(every).encode() + b"\0\x02" + b"\xff\0\0" * 2 + b"\0\0\0" + b"\t\t\t")

# --- model folders ---


def stage(name, folder, size, **keys):
    return {
        "name": name, "size": size, "network": f"{folder}/config.json", "precondition": {"edm": {"sigma_data": 0.5}},
        "experts": [{"weights": f"{folder}/weights.safetensors", "sigma": [0, None]}],
        "sampler": {"solver": "dpmpp-2m", "steps": 4, "schedule": {"karras": {"min": 0.02, "max": 20, "rho": 7}}},
        "guidance": {"scale": 3.0},
    } | keys


def manifest(*stages, **encoders):
    return {"format": "ediffi-pipeline/1", "encoders": encoders, "stages": list(stages)}


WEIGHTS = {"weights": "base/weights.safetensors"}
OWN = {"network": "base/config.json", "precondition": {"sample": {"sigma_data": 0.5}}}
several = [WEIGHTS | {"sigma": [2, None]} | OWN, WEIGHTS | {"sigma": [0, 2]}]
base = stage("base", "base", 8)
put("manifest/icons", read("models/icons/pipeline.json"))
put("manifest/one", manifest(base))
put("manifest/two", manifest(base, stage("sr", "sr", 16)))
put("manifest/several", manifest(base | {"experts": several, "weaker": WEIGHTS, "guidance": {"scale": 2.0, "against": "weaker"}}))
put("manifest/epsilon", manifest(base | {"precondition": {"epsilon": "squared-cosine"}, "sampler": base["sampler"] | {"schedule": "leading"}}))
put("manifest/encoders", manifest(base, t5="t5", clip="clip"))
for name in ["adm", "adm-patch", "efficient"]:
    put(f"network/{name}", read(f"{CORE}/ediffi/{name}/config.json"))
put("network/icons", read("models/icons/base/config.json"))
SWITCHES = {
    "variance": True, "noise_level": False, "activation": "gelu", "embedding_activation": "gelu", "norm_eps": 1e-5,
    "residual_scale": 1.414, "middle_scale": 1.414, "middle_self_attention": True, "text_heads": 2,
}
LEVEL = {"multiplier": 1, "blocks": 1, "cross_attention": True, "self_attention": True}
put("network/deepfloyd", {
    "layout": {"deepfloyd": SWITCHES}, "channels": 8, "head_channels": 4, "norm": {"group": 4}, "embedding_width": 16,
    "context": {"width": 8, "t5": {"tokens": 77, "width": 8}}, "levels": [LEVEL],
})
for which, name in enumerate(["model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json"]):
    put(f"published/{Path(name).parent.name or 'index'}", bytes([which]) + read(f"{CORE}/deepfloyd/stage-1/{name}"))
for which, name in enumerate(["t5/config.json", "clip/config.json", "clip/preprocessor_config.json"]):
    put(f"encoders/{name.replace('/', '-')}", bytes([which]) + read(f"{ENCODERS}/{name}"))
processor = {"image_processor": json.loads(read(f"{ENCODERS}/clip/preprocessor_config.json")), "processor_class": "CLIPProcessor"}
put("encoders/processor", b"\x03" + json.dumps(processor).encode())
put("shards/two", {"metadata": {"total_size": 1}, "weight_map": {"shared.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
put("shards/none", {"weight_map": {}})

# --- safetensors ---

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}


def stored(tensors, texts=None):
    """Tensors by name, of a kind and a shape; their bytes are those of small floats."""
    head, data = {"__metadata__": texts} if texts else {}, b""
    for name, (kind, shape) in tensors.items():
        count = SIZES[kind]
        for side in shape:
            count *= side
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + count]}
        data += (b"\0\0\x80\x3f" * count)[:count] if kind == "F32" else bytes(count)
    head = json.dumps(head, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


put("safetensors/kinds", stored({kind.lower(): (kind, [2, 1]) for kind in SIZES}, {"format": "pt", "note": "x"}))
put("safetensors/empty", stored({"a": ("F32", [0, 3]), "b": ("F32", [])}))
put("safetensors/nothing", stored({}))
put("safetensors/enlarger", read("ediffi-cascade/tests/fixtures/enlarger/compact-2.safetensors"))
for name in ["sd-1.a", "sd-1.b", "xl-base.b"]:
    put(f"lora/{name}", read(f"{CORE}/stable-diffusion/lora/{name}.safetensors"))
LAYER = "text_encoder.encoder.layers.0.self_attn.q_proj"
PEFT = {"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 3, "text_encoder.use_rslora": True, "text_encoder.alpha_pattern": {}})}
put("lora/peft", stored({f"{LAYER}.lora_A.weight": ("F32", [1, 6]), f"{LAYER}.lora_B.weight": ("F32", [6, 1])}, PEFT))
state = {f"{part}.{name}": ("F32", shape) for part in ["ema", "first", "second", "weights"] for name, shape in [("a", [2, 3]), ("b", [])]}
NOTES = {"step": "3", "pictures": "12", "settled": "true", "used": "11"}
put("checkpoint/resumed", stored(state, NOTES))
put("checkpoint/lineage", stored(state, NOTES | {"lineage.seed": "7", "seed": "7"}))
SPANS = json.dumps([{"start": 0, "end": 1}, {"start": 2, "end": 5}, None])
source = {"prompt": "a cat", "negative_prompt": "a dog", "unconditional": False, "truncate": False, "style": [{"embedding": STYLE}]}
both = {
    "prompt.t5": ("F32", [1, 3, 2]), "prompt.clip_text": ("F32", [1, 3, 1]), "prompt.clip_text_pooled": ("F32", [1, 2]),
    "negative.t5": ("F32", [1, 3, 2]), "style.clip_image": ("F32", [1, 2]),
}
spans = {f"{name}.spans": SPANS for name in ["prompt.t5", "prompt.clip_text", "negative.t5"]}
put("embeddings/both", stored(both, {"format": "ediffi-embeddings/1", "source": json.dumps(source)} | spans))
short = source | {"negative_prompt": None, "style": None}
put("embeddings/short", stored({"prompt.t5": ("F32", [1, 3, 2])}, {"format": "ediffi-embeddings/1", "source": json.dumps(short)} | spans))

further = {"format": "ediffi-embeddings/1", "source": json.dumps(short | {"further": ["a fish", " "]}), "further.0.t5.spans": SPANS}
put("embeddings/further", stored({"prompt.t5": ("F32", [1, 3, 2]), "further.0.t5": ("F32", [1, 3, 2])}, further | spans))


def diffusers(which, name, **sizes):
    """The weights of a network in diffusers' layout: a shape for each name."""
    put(f"diffusers/{name}", bytes([which]) + stored({name: ("F16", shape) for name, shape in sizes.items()}))


def layer(name, *shape):
    return {f"{name}.weight": list(shape), f"{name}.bias": list(shape[:1])}


def block(name, inputs, channels, time=0):
    """A residual block, with the embedding of the noise where there is one."""
    whole = layer(f"{name}.norm1", inputs) | layer(f"{name}.conv1", channels, inputs, 3, 3)
    whole |= layer(f"{name}.norm2", channels) | layer(f"{name}.conv2", channels, channels, 3, 3)
    whole |= layer(f"{name}.time_emb_proj", channels, time) if time else {}
    return whole | (layer(f"{name}.conv_shortcut", channels, inputs, 1, 1) if inputs != channels else {})


def half(name, blocks, out):
    """Encoder or decoder of an autoencoder of one level and one channel."""
    whole = layer(f"{name}.conv_in", 1, 1, 3, 3) | layer(f"{name}.conv_norm_out", 1) | layer(f"{name}.conv_out", out, 1, 3, 3)
    for place in ["mid_block.resnets.0", "mid_block.resnets.1", *blocks]:
        whole |= block(f"{name}.{place}", 1, 1)
    attention = f"{name}.mid_block.attentions.0"
    whole |= layer(f"{attention}.group_norm", 1)
    return whole | {key: shape for to in ["to_q", "to_k", "to_v", "to_out.0"] for key, shape in layer(f"{attention}.{to}", 1, 1).items()}


def attention(name, width):
    maps = {f"{name}.to_{to}.weight": [2, size] for to, size in [("q", 2), ("k", width), ("v", width)]}
    return maps | layer(f"{name}.to_out.0", 2, 2)


diffusers(3, "encoder", **half("encoder", ["down_blocks.0.resnets.0"], 2), **layer("quant_conv", 2, 2, 1, 1))
upward = half("decoder", ["up_blocks.0.resnets.0", "up_blocks.0.resnets.1"], 1) | layer("post_quant_conv", 1, 1, 1, 1)
diffusers(4, "decoder", **upward)
early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
place = "decoder.mid_block.attentions.0."
renamed = {key.replace(place + now, place + old): shape for now, old in early.items() for key, shape in upward.items() if place + now in key}
diffusers(4, "decoder-of-early-names", **{key: shape for key, shape in upward.items() if place + "to_" not in key}, **renamed)
middle, words = "mid_block.attentions.0", "mid_block.attentions.0.transformer_blocks.0"
unet = layer("time_embedding.linear_1", 2, 2) | layer("time_embedding.linear_2", 2, 2) | layer("conv_in", 2, 1, 3, 3)
unet |= layer("conv_norm_out", 2) | layer("conv_out", 1, 2, 3, 3)
for name, inputs in [("down_blocks.0.resnets.0", 2), ("mid_block.resnets.0", 2), ("mid_block.resnets.1", 2), ("up_blocks.0.resnets.0", 4), ("up_blocks.0.resnets.1", 4)]:
    unet |= block(name, inputs, 2, time=2)
unet |= layer(f"{middle}.norm", 2) | layer(f"{middle}.proj_in", 2, 2, 1, 1) | layer(f"{middle}.proj_out", 2, 2, 1, 1)
unet |= {key: shape for norm in [1, 2, 3] for key, shape in layer(f"{words}.norm{norm}", 2).items()}
unet |= attention(f"{words}.attn1", 2) | attention(f"{words}.attn2", 1)
unet |= layer(f"{words}.ff.net.0.proj", 16, 2) | layer(f"{words}.ff.net.2", 2, 8)
diffusers(5, "unet", **unet)
clip = "cond_stage_model.model."
checkpoint = layer("model.diffusion_model.input_blocks.0.0", 2, 1, 3, 3) | layer("model.diffusion_model.input_blocks.1.0.in_layers.0", 2)
checkpoint |= layer("model.diffusion_model.output_blocks.0.1.conv", 2, 2, 3, 3) | layer("first_stage_model.decoder.mid.attn_1.q", 1, 1, 1, 1)
checkpoint |= layer("first_stage_model.decoder.up.0.block.0.nin_shortcut", 1, 1, 1, 1) | {f"{clip}text_projection": [3, 2]}
checkpoint |= {f"{clip}transformer.resblocks.0.attn.in_proj_weight": [6, 2], f"{clip}transformer.resblocks.0.attn.in_proj_bias": [6]}
diffusers(9, "checkpoint", **checkpoint)
diffusers(9, "checkpoint-of-xl", **{key.replace("cond_stage_model", "conditioner.embedders.1"): shape for key, shape in checkpoint.items()})
for which, name in [(0, "unet-xl"), (1, "unet-1"), (0, "unet-refiner"), (2, "vae"), (2, "vae-without")]:
    put(f"diffusers/config-of-{name}", bytes([which]) + read(f"{CORE}/stable-diffusion/{name}/config.json"))
for which, name in [(6, "decoder"), (7, "super_res_first"), (8, "prior")]:
    put(f"diffusers/config-of-{name}", bytes([which]) + read(f"{CORE}/unclip/text/{name}/config.json"))

put("style/ink", stored({"clip_image": ("F32", [1, 4])}, {"format": "ediffi-style/1", "clip": "clip", "fingerprint": "0123456789abcdef"}))
# The target puts the fingerprint of its model in the place of the zeros.
MODEL = {"format": "ediffi-encoded/2", "fingerprint": "0" * 64, "texts": '["a cat"]', "lengths": "[3]", "spans": f"[{SPANS}]", "truncated": "[null]"}
of_t5 = MODEL | {"model": "t5", "encoding": "tokens with zeros after the end of a text"}
of_clip = MODEL | {"model": "clip", "encoding": "tokens and pooled embeddings of CLIP"}
tokens = ("F32", [1, 3, 2])
put("encoded/t5", b"\0" + stored({"tokens": tokens}, of_t5))
put("encoded/clip", b"\1" + stored({"tokens": tokens, "penultimate": tokens, "pooled": ("F32", [1, 2])}, of_clip))

# --- data of captioned pictures ---


def tar(form, files):
    """A tar file of files by name."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    # Without the blocks of zeros that fill it up to ten kilobytes.
    return whole.getvalue().rstrip(b"\0") + bytes(1024)


picture = PICTURES["clear.png"]
plain = {"a.png": picture, "a.txt": b"a cat", "b.png": picture, "b.json": b'{"caption": "a dog"}', "b.cls": b"3"}
put("dataset/ustar", b"\0" + tar(tarfile.USTAR_FORMAT, plain))
put("dataset/gnu", b"\0" + tar(tarfile.GNU_FORMAT, {"k" * 120 + end: content for end, content in [(".png", picture), (".txt", b"x")]}))
put("dataset/pax", b"\0" + tar(tarfile.PAX_FORMAT, {"\u00e9" * 70 + end: content for end, content in [(".png", picture), (".txt", b"x")]}))
put("dataset/jsonl", b"\1" + json.dumps({"file_name": "a.png", "text": "a cat", "width": 3}).encode() + b"\n")
put("dataset/csv", b'\2file_name,text\na.png,"a ""cat"""\nb/c.png,a dog\n')
rows = {"t5": ("F32", [4, 2]), "t5.ends": ("I64", [3]), "clip_text": ("F32", [3, 2])}
of_rows = {"format": "ediffi-rows/1", "data": "d", "encoder": "e", "first": "0"}
put("dataset/rows", b"\3" + stored({name: rows[name] for name in ["clip_text"]}, of_rows))
ends = stored(rows, of_rows)
put("dataset/tokens", b"\3" + ends[:-48] + struct.pack("<3q", 1, 1, 4) + ends[-24:])

for which, name in enumerate(["metadata", "pictures"]):
    put(f"parquet/{name}", bytes([which]) + read(f"ediffi-data/tests/fixtures/{name}.parquet"))

# --- tokenizers ---

put("spiece/bytes", gzip.decompress(read(f"{ENCODERS}/tokenizers/bytes.spiece.model.gz")))
clip = json.loads(read(f"{ENCODERS}/clip/tokenizer.json"))
merges = "\n".join(merge if isinstance(merge, str) else " ".join(merge) for merge in clip["model"]["merges"])
put("tokenizer/t5", b"\0" + read(f"{ENCODERS}/t5/tokenizer.json"))
put("tokenizer/bytes", b"\0" + gzip.decompress(read(f"{ENCODERS}/tokenizers/bytes.tokenizer.json.gz")))
put("tokenizer/clip", b"\1" + json.dumps(clip).encode())
put("tokenizer/merges", b"\2" + json.dumps(clip["model"]["vocab"]).encode() + b"\0#version: 0.2\n" + merges.encode() + b"\n")

def token(content):
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": False, "special": True}


settings = {
    "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": token("<pad>"), "unk_token": "<unk>", "extra_ids": 100,
    "additional_special_tokens": ["<extra_id_99>"], "model_max_length": 512, "sp_model_kwargs": {}, "padding_side": "right",
    "add_prefix_space": True, "added_tokens_decoder": {"0": token("<pad>"), "60": token("<extra_id_99>")}, "legacy": True,
}
put("settings/t5", b"\0" + json.dumps(settings).encode())
put("settings/t5-map", b"\2" + json.dumps({"eos_token": token("</s>"), "pad_token": "<pad>", "additional_special_tokens": ["<a>"]}).encode())
put("settings/t5-added", b"\4" + json.dumps({"<extra_id_99>": 60}).encode())
ends = {"bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "pad_token": "!", "unk_token": "<|endoftext|>"}
settings = ends | {
    "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "errors": "replace", "add_prefix_space": False, "model_max_length": 77,
    "added_tokens_decoder": {"593": token("<|startoftext|>"), "594": token("<|endoftext|>")},
}
put("settings/clip", b"\1" + json.dumps(settings).encode())
put("settings/clip-map", b"\3" + json.dumps(ends).encode())
put("settings/clip-added", b"\5" + json.dumps({"<|endoftext|>": 594}).encode())
# Rules whose growth is bounded: bytes, and a compiled table that makes "bc" of "a".
units = [0] * 256
units[0], units[1 ^ 97], units[1 ^ 97 ^ 2] = 1 << 10, 2 << 10 | 1 << 8 | 97, 1 << 31 | 1
table = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + b"\0bc\0"
rules = clip | {
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 2},
}
put("tokenizer/table", b"\1" + json.dumps(rules).encode())

# --- plans ---

put("plan/icons", read("models/icons/training/plan.toml"))
put("plan/small", """name = "two"
seed = 7
batch = 4
[[encoders]]
name = "clip"
batch = 2
training = { steps = 4, learning-rate = 1e-3, ema = 0.9 }
[[stages]]
name = "base"
noise = { p_mean = -1.2, p_std = 1.2 }
tail = { share = 0.1, from = 9.61, to = 80.0 }
sampling = { steps = 25, schedule = { karras = { min = 0.002, max = 80.0, rho = 7.0 } } }
[[stages.networks]]
name = "shared"
cell = "(0, 0)"
training = { steps = 4, learning-rate = 1e-3, ema = 0.9 }
[[stages.networks]]
name = "high"
cell = "(9, 511)"
parent = "shared"
training = { steps = 2, learning-rate = 1e-3, ema = 0.9, cosine = true, warm-up = 1 }
[[stages.networks]]
name = "rest"
cell = "all but (9, 511)"
parent = "shared"
training = { steps = 2, learning-rate = 1e-3, ema = 0.9 }
""")
