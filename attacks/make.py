"""Makes the archive of this folder: `python3 attacks/make.py`. Nothing but Python's own library is needed."""

import base64
import gzip
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
ICON = base64.b64encode((HERE.parent / "examples/style/ink.png").read_bytes()).decode()
FILES = {}


def put(name, content):
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    FILES[name] = content.encode() if isinstance(content, str) else content


def archive():
    """All files, in the order of their names and without dates, so that the same files are the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(FILES):
            entry = tarfile.TarInfo(name)
            entry.size = len(FILES[name])
            tar.addfile(entry, io.BytesIO(FILES[name]))
    return gzip.compress(packed.getvalue(), mtime=0)


# --- PNG ---


def chunk(kind, data, length=None, crc=None):
    length = len(data) if length is None else length
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", length) + kind + data + struct.pack(">I", crc)


def header(width, height, depth=8, colour=0):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


PIXELS = chunk(b"IDAT", zlib.compress(b"\0\0"))
END = chunk(b"IEND", b"")


def text(keyword, value):
    return chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + value.encode())


def packed(keyword, value):
    return chunk(b"iTXt", keyword.encode() + b"\0\1\0\0\0" + zlib.compress(value.encode(), 9))


def with_texts(*texts):
    return header(1, 1) + b"".join(texts) + PIXELS + END


REQUEST = json.dumps({"prompt": "a cat"})
SEED = text("ediffi:seed", "1")

# --- safetensors ---


def stored(tensors, texts=None, data=b"", length=None):
    head = {}
    if texts is not None:
        head["__metadata__"] = texts
    head.update({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets} for name, dtype, shape, offsets in tensors})
    head = json.dumps(head, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def one(shape=(2,), offsets=(0, 8), dtype="F32", data=bytes(8), texts=None):
    return stored([("a", dtype, list(shape), list(offsets))], texts, data)


# --- requests ---


def request(**keys):
    return {"prompt": "a red apple", **keys}


def stage(**keys):
    return request(stages={"base": keys})


def canvas(mask, width=4, height=4, **region):
    return request(canvas={"width": width, "height": height, "regions": [{"phrase": "apple", "mask": mask, **region}]})


def style(*references, **keys):
    return request(style={"references": list(references), **keys})


put("requests/depth.json", '{"prompt": "a", "stages": ' + "[" * 2000)
put("requests/duplicate-key.json", '{"prompt": "a", "images": 1, "images": 64}')
put("requests/unknown-key.json", request(sedd=1))
put("requests/infinite-number.json", '{"prompt": "a", "stages": {"base": {"guidance_scale": 1e400}}}')
put("requests/not-a-number.json", '{"prompt": "a", "stages": {"base": {"guidance_scale": NaN}}}')
put("requests/half-a-character.json", '{"prompt": "\\ud800"}')
put("requests/not-utf-8.json", b'{"prompt": "\xff"}')
put("requests/cut.json", '{"prompt": "a')
put("requests/images-beyond-64-bits.json", '{"prompt": "a", "images": 18446744073709551616}')
put("requests/images.json", request(images=2**64 - 1))
put("requests/pixels.json", request(width=2**32 - 1, height=2**32 - 1))
put("requests/steps.json", stage(steps=10**9))
put("requests/steps-of-a-list.json", stage(steps=2**64 - 1, schedule={"custom": [80, 1, 0]}))
put("requests/long-list-of-steps.json", stage(schedule={"custom": [2000 - i for i in range(2000)]}))
put("requests/rising-steps.json", stage(schedule={"custom": [1, 2, 3]}))
put("requests/sigma.json", stage(schedule={"karras": {"min": 1e-300, "max": 1e300, "rho": 7}}))
put("requests/exponent.json", stage(schedule={"karras": {"min": 0.002, "max": 80, "rho": 1e-300}}))
put("requests/churn.json", stage(solver={"heun": {"s_churn": 1e300}}))
put("requests/fresh-noise.json", stage(solver={"dpmpp-2m-sde": {"eta": -1}}))
put("requests/guidance.json", stage(guidance_scale=1e300))
put("requests/percentile.json", stage(guidance={"scale": 3, "thresholding": {"dynamic": {"percentile": -1, "cap": 2}}}))
put("requests/endless-tiles.json", stage(tiling={"tile": 64, "overlap": 63}))
put("requests/empty-tiles.json", stage(tiling={"tile": 0, "overlap": 0}))
put("requests/many-unknown-stages.json", request(stages={f"{i:04}" + "x" * 60: {} for i in range(200)}))
put("requests/long-stage.json", request(last_stage="x" * 12_000))
put("requests/long-prompt.json", {"prompt": "a " * 6_000})
put("requests/empty-prompt.json", {"prompt": " \u3000\n"})
put("requests/long-phrase.json", canvas("255*16", occurrence="all") | {"canvas": {"width": 4, "height": 4, "regions": [{"phrase": "appl " * 2000, "mask": "255*16"}]}})
put("requests/phrase-of-another-text.json", canvas("255*16") | {"prompt": "pears " * 200})
put("requests/mask-bomb.json", canvas("255*4294967295", 2048, 2048))
put("requests/mask-of-many-runs.json", canvas("0*4294967295 " * 1000, 2048, 2048))
put("requests/masks.json", request(canvas={"width": 2048, "height": 2048, "regions": [{"phrase": "apple", "mask": "255*4194304"}] * 64}))
put("requests/regions.json", request(canvas={"width": 1, "height": 1, "regions": [{"phrase": "apple", "mask": "255"}] * 300}))
put("requests/canvas-sides.json", canvas("0", 2**32 - 1, 2**32 - 1))
put("requests/empty-canvas.json", request(canvas={"width": 4, "height": 4, "regions": []}))
put("requests/unpainted.json", canvas("0*16"))
put("requests/weight.json", canvas("255*16", weight=1e308))
put("requests/span-beyond-the-prompt.json", canvas("255*16", occurrence={"span": {"start": 3, "end": 2**64 - 1}}))
put("requests/span-backwards.json", canvas("255*16", occurrence={"span": {"start": 9, "end": 3}}))
put("requests/zeroth-occurrence.json", canvas("255*16", occurrence={"nth": 0}))
put("requests/style-no-base64.json", style({"image": "?" * 100}))
put("requests/style-no-picture.json", style({"image": base64.b64encode(b"no picture").decode()}))
put("requests/style-bomb.json", style({"image": base64.b64encode(header(20_000, 20_000, 8, 3) + chunk(b"PLTE", bytes(3)) + PIXELS).decode()}))
put("requests/style-strip.json", style({"image": base64.b64encode(header(8000, 1) + PIXELS + END).decode()}))
put("requests/style-of-nothing.json", style())
put("requests/style-of-many.json", style(*[{"embedding": {"values": "AACAPw==", "clip": "x", "fingerprint": "y"}}] * 200))
put("requests/style-not-finite.json", style({"embedding": {"values": base64.b64encode(struct.pack("<f", float("nan"))).decode(), "clip": "x", "fingerprint": "y"}}))
put("requests/style-of-another.json", style({"embedding": {"values": "AACAPw==", "clip": "x" * 12_000, "fingerprint": "y" * 12_000}}))
put("requests/style-of-both.json", style({"image": ICON, "embedding": {"values": "", "clip": "", "fingerprint": ""}}))
put("requests/style-weights.json", style({"image": ICON, "weight": 1e308}, {"image": ICON, "weight": 1e308}))
put("requests/style-strength.json", style({"image": ICON}, strength=-1))
BOMB = base64.b64encode(header(20_000, 20_000, 8, 3) + chunk(b"PLTE", bytes(3)) + PIXELS).decode()
put("requests/edit-bomb.json", request(edit={"picture": BOMB}))
put("requests/edit-mask-bomb.json", request(edit={"picture": ICON, "mask": BOMB}))
put("requests/edit-no-picture.json", request(edit={"picture": base64.b64encode(b"no picture").decode()}))
put("requests/edit-large.json", request(edit={"picture": base64.b64encode(header(8000, 8000) + PIXELS + END).decode()}))
put("requests/edit-strip.json", request(edit={"picture": base64.b64encode(header(8000, 1) + PIXELS + END).decode()}))
put("requests/edit-strength.json", request(edit={"picture": ICON, "strength": -1e308}))
put("requests/edit-endless-jumps.json", request(edit={"picture": ICON, "mask": ICON, "jumps": {"length": 2**64 - 1, "count": 2**64 - 1}}))
put("requests/edit-many-jumps.json", request(edit={"picture": ICON, "mask": ICON, "jumps": {"length": 1, "count": 2**64 - 1}}))
put("requests/edit-jumps-of-nothing.json", request(edit={"picture": ICON, "mask": ICON, "jumps": {"length": 0, "count": 1}}))
put("requests/first-stage-of-no-picture.json", request(first_stage="sr1024"))
put("requests/mix-of-many.json", request(mix=[{"prompt": "a cat", "share": 1e-4}] * 200))
put("requests/mix-of-more-than-all.json", request(mix=[{"prompt": "a cat", "share": 0.75, "sigma": [1, 9]}, {"prompt": "a dog", "share": 0.75, "sigma": [2, None]}]))
put("requests/mix-share.json", request(mix=[{"prompt": "a cat", "share": -1e308}]))
put("requests/mix-of-a-long-prompt.json", request(mix=[{"prompt": "a " * 6_000}]))
put("requests/prompt-of-no-stage.json", request(stage_prompts={"x" * 12_000: {"prompt": "a cat"}}))
put("requests/near.json", request(near={"seed": 2**64 - 1, "strength": 1e300}))
put("requests/stages-backwards.json", request(first_stage="sr256", last_stage="base"))

# --- PNG files with a request ---

put("pngs/text-bomb.png", with_texts(SEED, packed("ediffi:request", " " * (65 << 20))))
put("pngs/many-text-bombs.png", with_texts(SEED, *[packed(f"ediffi:x{i}", " " * (22 << 20)) for i in range(3)]))
put("pngs/endless-parts.png", with_texts(SEED, text("ediffi:parts", str(2**64 - 1)), text("ediffi:request", REQUEST)))
put("pngs/no-parts.png", with_texts(SEED, text("ediffi:parts", "-1"), text("ediffi:request", REQUEST)))
put("pngs/parts-without-an-end.png", with_texts(SEED, text("ediffi:parts", "3"), text("ediffi:request", REQUEST[:5]), text("ediffi:request:2", REQUEST[5:])))
put("pngs/no-request.png", with_texts(text("Software", "another")))
put("pngs/request-of-the-future.png", with_texts(SEED, text("ediffi:request", '{"prompt": "a", "lens": 3}')))
put("pngs/long-key.png", with_texts(SEED, packed("ediffi:request", '{"' + "k" * 2_000_000 + '": 1}')))
put("pngs/deep-request.png", with_texts(SEED, packed("ediffi:request", '{"stages": ' + '{"a":' * 100_000)))
put("pngs/wrong-sum.png", with_texts(chunk(b"iTXt", b"ediffi:seed\0\0\0\0\x001", crc=1)))
put("pngs/endless-chunk.png", header(1, 1) + chunk(b"iTXt", b"ediffi:seed\0\0\0\0\x001", length=2**31 - 1))
put("pngs/cut.png", header(1, 1)[:-2])
put("pngs/no-png.png", b"GIF89a")

# --- pictures ---

put("pictures/sides.png", header(2**31 - 1, 2**31 - 1) + PIXELS + END)
put("pictures/palette-bomb.png", header(20_000, 20_000, 1, 3) + chunk(b"PLTE", bytes(6)) + chunk(b"IDAT", zlib.compress(bytes(20_000 * 2501), 9)) + END)
put("pictures/long-side.png", header(100_000, 1) + PIXELS + END)
put("pictures/no-pixels.png", header(0, 5) + PIXELS + END)
put("pictures/cut.png", header(64, 64) + chunk(b"IDAT", zlib.compress(bytes(65 * 20))) + END)
put("pictures/no-palette.png", header(4, 4, 8, 3) + chunk(b"IDAT", zlib.compress(bytes(20))) + END)
put("pictures/no-deflate.png", header(4, 4) + chunk(b"IDAT", b"\xff" * 40) + END)
put("pictures/sides.jpg", b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(64) + b"\xff\xd9")
put("pictures/progressive-bomb.jpg", b"\xff\xd8\xff\xc2\x00\x11\x08\x3f\xff\x3f\xff\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01" + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x00\x00" * 200 + b"\xff\xd9")
put("pictures/cut.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF")
put("pictures/another-format.gif", b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;")
put("pictures/program.svg", '<svg xmlns="http://www.w3.org/2000/svg"><script>1</script><image href="file:///etc/passwd"/></svg>')

# --- model folders ---


def model(name, manifest, **files):
    put(f"models/{name}/pipeline.json", manifest)
    for file, content in files.items():
        put(f"models/{name}/{file.replace('__', '/').replace('_json', '.json').replace('_safetensors', '.safetensors')}", content)


def manifest(encoders=None, **keys):
    base = {
        "name": "base", "size": 8, "network": "base/config.json", "precondition": {"edm": {"sigma_data": 0.5}},
        "experts": [{"weights": "base/weights.safetensors", "sigma": [0, None]}],
        "sampler": {"solver": "euler", "steps": 4, "schedule": {"karras": {"min": 0.02, "max": 20, "rho": 7}}},
    } | keys
    return {"format": "ediffi-pipeline/1", "encoders": encoders or {}, "stages": [base]}


def sampler(**keys):
    return {"solver": "euler", "steps": 4, "schedule": {"karras": {"min": 0.02, "max": 20, "rho": 7}}} | keys


def network(**keys):
    return {
        "layout": "adm", "channels": 4, "levels": [{"multiplier": 1, "blocks": 1}], "head_channels": 4, "norm": {"group": 2},
        "embedding_width": 10,
    } | keys


def t5(**keys):
    return {"vocab_size": 60, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu"} | keys


OF_T5 = {"width": 8, "t5": {"tokens": 4, "width": 16}}
PASSWORDS = "/etc/passwd"
model("absolute-network", manifest(network=PASSWORDS))
model("network-above", manifest(network="base/../../config.json"))
model("absolute-weights", manifest(experts=[{"weights": PASSWORDS, "sigma": [0, None]}]))
model("weights-above", manifest(experts=[{"weights": "../weights.safetensors", "sigma": [0, None]}]))
model("weaker-above", manifest(weaker={"weights": "../weights.safetensors"}))
model("absolute-encoder", manifest({"t5": "/etc"}))
model("encoder-above", manifest({"clip": ".."}))
model("network-is-a-folder", manifest(network="base"))
model("no-such-network", manifest(network="n" * 300))
model("long-name", manifest(name="n" * 12_000, size=0))
model("long-key", '{"format": "ediffi-pipeline/1", "stages": [], "' + "k" * 12_000 + '": 1}')
model("long-format", {"format": "f" * 12_000})
model("depth", '{"format": "ediffi-pipeline/1", "stages": ' + "[" * 2000)
model("duplicate-key", '{"format": "ediffi-pipeline/1", "stages": [], "stages": []}')
model("no-stages", {"format": "ediffi-pipeline/1", "stages": []})
model("endless-size", manifest(size=2**62))
model("endless-steps", manifest(sampler=sampler(steps=10**12)))
model("steps-of-a-list", manifest(sampler=sampler(steps=2**64 - 1, schedule={"custom": [80, 1, 0]})))
model("hole-between-experts", manifest(experts=[{"weights": "base/weights.safetensors", "sigma": [0, 1]}, {"weights": "base/weights.safetensors", "sigma": [2, None]}]))
model("experts-overlap", manifest(experts=[{"weights": "base/weights.safetensors", "sigma": [0, None]}] * 2))
model("endless-guidance", manifest(guidance={"scale": 1e300}))
model("same-name-twice", {"format": "ediffi-pipeline/1", "stages": manifest()["stages"] * 2})
model("endless-channels", manifest(), base__config_json=network(channels=2**40))
model("endless-blocks", manifest(), base__config_json=network(levels=[{"multiplier": 1, "blocks": 10**9}]))
model("endless-levels", manifest(), base__config_json=network(levels=[{"multiplier": 1, "blocks": 1}] * 300))
model("widest-network", manifest(), base__config_json=network(channels=2**20, patch=2**20, levels=[{"multiplier": 64, "blocks": 64}] * 16, norm={"group": 1}))
model("no-groups", manifest(), base__config_json=network(norm={"group": 0}))
model("no-heads", manifest(), base__config_json=network(head_channels=0, levels=[{"multiplier": 1, "blocks": 1, "self_attention": True}]))
model("unknown-layout", manifest(), base__config_json=network(layout="l" * 12_000))
model("endless-context", manifest(), base__config_json=network(context={"width": 2**62, "t5": {"tokens": 2**62, "width": 2**62}}))
model("weights-of-another", manifest(), base__config_json=network(channels=8))
model("long-names-of-weights", manifest(), base__weights_safetensors=stored([(f"{i:04}" + "n" * 500, "U8", [0], [0, 0]) for i in range(30)]))
model("pointer", manifest(), base__weights_safetensors="version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
model("endless-t5", manifest({"t5": "t5"}), base__config_json=network(context=OF_T5), t5__config_json=t5(num_layers=10**12))
model("widest-t5", manifest({"t5": "t5"}), base__config_json=network(context=OF_T5), t5__config_json=t5(d_model=2**40))
model("no-buckets", manifest({"t5": "t5"}), base__config_json=network(context=OF_T5), t5__config_json=t5(relative_attention_num_buckets=0))

# --- weights ---

put("weights/empty.safetensors", b"")
put("weights/header-of-2-63.safetensors", stored([], length=2**63))
put("weights/header-of-2-64.safetensors", stored([], length=2**64 - 1))
put("weights/header-beyond-the-file.safetensors", stored([], length=90_000_000))
put("weights/no-json.safetensors", struct.pack("<Q", 8) + b"\xff" * 8)
put("weights/depth.safetensors", struct.pack("<Q", 2000) + b'{"a":' * 400)
put("weights/overlap.safetensors", stored([("a", "F32", [2], [0, 8]), ("b", "F32", [2], [4, 12])], data=bytes(12)))
put("weights/hole.safetensors", stored([("a", "F32", [1], [0, 4]), ("b", "F32", [1], [8, 12])], data=bytes(12)))
put("weights/backwards.safetensors", one(offsets=(8, 0)))
put("weights/negative-shape.safetensors", one(shape=(-2,)))
put("weights/shape-beyond-64-bits.safetensors", one(shape=(2**32, 2**32)))
put("weights/shape-of-2-63.safetensors", one(shape=(0, 2**63), offsets=(0, 0), data=b""))
put("weights/shape-of-nothing-and-much.safetensors", one(shape=(2**62, 2, 0), offsets=(0, 0), data=b""))
BEYOND = stored([(f"{i}", "U8", [2**61 - 1], [i * (2**61 - 1), (i + 1) * (2**61 - 1)]) for i in range(8)] + [("8", "U8", [7], [8 * (2**61 - 1), 2**64 - 1])])
put("weights/lengths-beyond-64-bits.safetensors", BEYOND)
put("weights/other-length.safetensors", one(shape=(3,)))
put("weights/cut.safetensors", one(data=bytes(7)))
put("weights/something-behind.safetensors", one(data=bytes(9)))
put("weights/unknown-kind.safetensors", one(dtype="Q4"))
put("weights/kind-that-is-not-read.safetensors", one(dtype="F8_E4M3", offsets=(0, 2), data=bytes(2)))
put("weights/long-name.safetensors", stored([("n" * 12_000, "F32", [3], [0, 8])], data=bytes(8)))
put("weights/texts-that-are-none.safetensors", one(texts={"step": 1}))

# --- LoRAs ---


def lora(up=(4, 2), down=(2, 6), module="down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", texts=None, alpha=None):
    """Of zeros, for a layer of the network that the test has."""
    tensors, end = [], 0
    parts = {"lora_B.weight": up, "lora_A.weight": down} | ({} if alpha is None else {"alpha": ()})
    for name, shape in parts.items():
        size = 4 * (shape[0] * shape[1] if shape else 1)
        tensors.append((f"unet.{module}.{name}", "F32", list(shape), [end, end + size]))
        end += size
    data = bytes(end) if alpha is None else bytes(end - 4) + struct.pack("<f", alpha)
    return stored(tensors, texts, data)


put("loras/another-base.safetensors", lora(down=(2, 9)))
put("loras/another-kind.safetensors", stored([("lora_unet_mid_block.hada_w1_a", "F32", [2], [0, 8])], data=bytes(8)))
put("loras/another-layer.safetensors", lora(module="m" * 2_000))
put("loras/deep-settings.safetensors", lora(texts={"lora_adapter_metadata": "[" * 2000}))
put("loras/infinite-alpha.safetensors", lora(alpha=float("inf")))
put("loras/long-names.safetensors", stored([(f"{i:04}" + "n" * 100, "U8", [0], [0, 0]) for i in range(30)]))
put("loras/no-rank.safetensors", lora(up=(4, 0), down=(0, 6)))
put("loras/nothing.safetensors", stored([]))
put("loras/two-ranks.safetensors", lora(down=(3, 6)))

# --- shards ---

for name, shard in {"absolute": PASSWORDS, "above": "../a.safetensors", "hidden": ".a", "folder": "a/b.safetensors", "nothing": "", "itself": ".", "missing": "none.safetensors", "long": "s" * 12_000 + "/"}.items():
    put(f"shards/{name}.json", {"weight_map": {"a": shard}})
put("shards/no-map.json", {"weight_map": [1]})

# --- checkpoints ---

PARTS = ["ema", "first", "second", "weights"]


def checkpoint(texts, dtype="F32", shape=(2,), each=8):
    tensors = [(f"{part}.a", dtype, list(shape), [i * each, (i + 1) * each]) for i, part in enumerate(PARTS)]
    return stored(tensors, texts, bytes(4 * each))


NOTES = {"step": "3", "pictures": "12", "settled": "true", "used": "1"}
put("checkpoints/no-step.safetensors", checkpoint({}))
put("checkpoints/negative-step.safetensors", checkpoint(NOTES | {"step": "-1"}))
put("checkpoints/step-beyond-64-bits.safetensors", checkpoint(NOTES | {"step": str(2**64)}))
put("checkpoints/other-shape.safetensors", checkpoint(NOTES, shape=(4,), each=16))
put("checkpoints/other-kind.safetensors", checkpoint(NOTES, dtype="I32"))
put("checkpoints/other-network.safetensors", one(texts=NOTES))
put("checkpoints/cut.safetensors", checkpoint(NOTES)[:-3])

# --- embeddings and styles ---

SOURCE = json.dumps({"prompt": "a", "negative_prompt": None, "unconditional": False, "truncate": False, "style": None})
EMBEDDED = {"format": "ediffi-embeddings/1", "source": SOURCE, "prompt.t5.spans": "[null]"}


def embedding(shape, texts, data=b""):
    return stored([("prompt.t5", "F32", list(shape), [0, len(data)])], texts, data)


put("embeddings/no-format.safetensors", one())
put("embeddings/lengths-beyond-64-bits.safetensors", BEYOND)
put("embeddings/long-format.safetensors", one(texts={"format": "f" * 12_000}))
put("embeddings/other-spans.safetensors", embedding((1, 2, 1), EMBEDDED, bytes(8)))
put("embeddings/two-rows.safetensors", embedding((2, 1, 1), EMBEDDED, bytes(8)))
put("embeddings/width-of-2-63.safetensors", embedding((1, 0, 2**63), EMBEDDED | {"prompt.t5.spans": "[]"}))
put("embeddings/long-key-of-source.safetensors", embedding((1, 1, 1), EMBEDDED | {"source": '{"' + "k" * 12_000 + '": 1}'}, bytes(4)))
put("embeddings/deep-source.safetensors", embedding((1, 1, 1), EMBEDDED | {"source": "[" * 2000}, bytes(4)))
STYLE = {"format": "ediffi-style/1", "clip": "c", "fingerprint": "f"}
put("styles/no-clip.safetensors", stored([("clip_image", "F32", [1, 1], [0, 4])], {"format": "ediffi-style/1"}, bytes(4)))
put("styles/not-finite.safetensors", stored([("clip_image", "F32", [1, 1], [0, 4])], STYLE, struct.pack("<f", float("inf"))))
put("styles/two-rows.safetensors", stored([("clip_image", "F32", [2, 1], [0, 8])], STYLE, bytes(8)))
put("styles/other-format.safetensors", one(texts={"format": "f" * 12_000}))

# --- tokenizers ---


def number(value):
    digits = b""
    while value > 127:
        digits, value = digits + bytes([value & 127 | 128]), value >> 7
    return digits + bytes([value])


def field(key, value):
    return number(key << 3 | 2) + number(len(value)) + value


def piece(text, score=0.0, kind=1):
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))


SPECIAL = piece("<pad>", kind=3) + piece("</s>", kind=3) + piece("<unk>", kind=2)
put("spieces/empty.model", b"")
put("spieces/piece-of-2-63.model", SPECIAL + b"\x0a" + number(2**63) + b"a")
put("spieces/number-without-end.model", SPECIAL + b"\xff" * 12)
put("spieces/not-a-number.model", SPECIAL + piece("a", float("nan")))
put("spieces/no-unknown.model", piece("a") * 1)
put("spieces/twice.model", SPECIAL + piece("a") * 2)
put("spieces/long-twice.model", SPECIAL + piece("p" * 12_000) * 2)
put("spieces/other-kind.model", SPECIAL + field(2, b"\x18\x02"))
put("spieces/short-table.model", SPECIAL + field(3, field(2, struct.pack("<I", 2**32 - 1) + bytes(8))))
put("spieces/not-utf-8.model", SPECIAL + field(1, field(1, b"\xff")))
put("spieces/other-end.model", piece("</s>", kind=3) + piece("<pad>", kind=3) + piece("<unk>", kind=2) + piece("a"))
VOCABULARY = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b": 3, "ab": 4, "ba": 5}


def tokenizer(vocab=None, merges=(), **keys):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": VOCABULARY if vocab is None else vocab, "merges": list(merges)},
    } | keys


put("tokenizers/merge-of-nothing.json", tokenizer(merges=["a c"]))
put("tokenizers/merge-of-itself.json", tokenizer(merges=["ab ba", "ba ab", "a b"]))
put("tokenizers/number-beyond-the-table.json", tokenizer(VOCABULARY | {"c": 2**32 - 1}))
put("tokenizers/number-beyond-32-bits.json", tokenizer(VOCABULARY | {"c": 2**32}))
put("tokenizers/few-tokens.json", tokenizer({"<|startoftext|>": 0, "<|endoftext|>": 1}))
put("tokenizers/no-special-tokens.json", tokenizer({"a": 0}))
put("tokenizers/regex.json", tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 1000}, "behavior": "Removed", "invert": False}))
put("tokenizers/depth.json", json.dumps(tokenizer()).replace('"normalizer": null', '"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 500))
put("tokenizers/table.json", tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}))
put("tokenizers/long-kind.json", tokenizer(normalizer={"type": "t" * 12_000}))
put("tokenizers/parts-of-no-length.json", tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0}))
put("tokenizers/growth.json", tokenizer(normalizer={"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 20}))
# A table without a trie; its one replacement is long.
LONG_TABLE = base64.b64encode(struct.pack("<I", 0) + b"x" * 65 + b"\0").decode()
put("tokenizers/growth-of-table.json", tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": LONG_TABLE}))
put("tokenizers/table-of-gigabytes.json", tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w=="}))
put("tokenizers/growth-of-bytes.json", tokenizer(normalizer={"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 20}))
put("tokenizers/growth-of-pieces.json", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 20}))

# --- plans ---

PLAN = """name = "p"
seed = 1
batch = 4
[[stages]]
name = "base"
sampling = { steps = 25, schedule = { karras = { min = 0.002, max = 80.0, rho = 7.0 } } }
[[stages.networks]]
name = "all"
cell = "(0, 0)"
training = { steps = 4, learning-rate = 1e-3, ema = 0.9 }
"""


def plan(name, old, new):
    assert old in PLAN, old
    put(f"plans/{name}.toml", PLAN.replace(old, new))


plan("sampling-steps", "steps = 25", "steps = 1000000000")
plan("endless-batch", "batch = 4", "batch = 9223372036854775807")
plan("negative-batch", "batch = 4", "batch = -1")
plan("no-steps", "steps = 4", "steps = 0")
plan("not-a-number", "learning-rate = 1e-3", "learning-rate = nan")
plan("infinite-average", "ema = 0.9", "ema = inf")
plan("noise-not-a-number", "sampling", "noise = { p_mean = nan, p_std = 1.2 }\nsampling")
plan("tail-not-a-number", "sampling", "tail = { share = nan, from = 1.0, to = 9.0 }\nsampling")
plan("path", 'name = "all"', 'name = "../../all"')
plan("own-parent", 'cell = "(0, 0)"', 'cell = "(0, 0)"\nparent = "all"')
plan("deep-cell", '"(0, 0)"', '"(4000000000, 0)"')
plan("hole", '"(0, 0)"', '"(1, 0)"')
plan("unknown-key", "seed = 1", "sed = 1")
plan("long-key", "seed = 1", "k" * 12_000 + " = 1")
plan("long-cell", '"(0, 0)"', '"' + "c" * 12_000 + '"')
plan("depth", "seed = 1", "seed = " + "[" * 2000)

(HERE / "files.tar.gz").write_bytes(archive())
