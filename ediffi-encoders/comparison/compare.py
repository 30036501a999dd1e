"""Measures the encoders of this project beside `transformers`, on the same files, one process each, in turn.

    cargo build --release -p ediffi-encoders --example encoder_times
    pip install torch==2.11.0 transformers==5.23.0 sentencepiece pillow
    python ediffi-encoders/comparison/make_models.py FOLDER
    python ediffi-encoders/comparison/compare.py FOLDER [t5-xxl] [t5-250m] [clip-text] [clip-image]

Prints a table in Markdown. `transformers` runs its eager implementation in the same precision, with the mask, on ids that
are filled up to 77 as its pipelines do. The long text fills the 77 columns; the short one is what prompts are like.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SHORT = "a photo of an astronaut riding a horse on the moon"
LONG = "a photo of an astronaut riding a horse on the moon " * 9
CASES = {
    "t5-250m": [("t5", "t5-250m", "f32", 7), ("t5", "t5-250m", "bf16", 5)],
    "t5-xxl": [("t5", "t5-xxl", "bf16", 3)],
    "clip-text": [("clip-text", "clip-l", "f32", 15)],
    "clip-image": [("clip-image", "clip-l", "f32", 7)],
}


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 // 1_000_000 for line in lines if line.startswith("VmHWM"))


def transformers_times(encoder, folder, precision, runs, text):
    import torch
    import transformers

    torch.set_num_threads(2)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    kind = {"t5": "T5EncoderModel", "clip-text": "CLIPTextModelWithProjection", "clip-image": "CLIPVisionModelWithProjection"}
    started = time.perf_counter()
    model = getattr(transformers, kind[encoder]).from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    # Lazily mapped weights are read when they are first used; loading ends when all of them have been.
    sum(p.flatten()[:: 1024].double().sum() for p in model.parameters())
    load, loaded = time.perf_counter() - started, peak()
    if encoder == "t5":
        import sentencepiece

        ids = (sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spiece.model").encode(text) + [1])[-77:]
        mask = [1] * len(ids) + [0] * (77 - len(ids))
        inputs = dict(input_ids=torch.tensor([ids + [0] * (77 - len(ids))]), attention_mask=torch.tensor([mask]))
    elif encoder == "clip-text":
        merges = [tuple(m.split(" ")) for m in Path(f"{folder}/merges.txt").read_text().split("\n")[1:] if m]
        tokenizer = transformers.CLIPTokenizer(vocab=json.loads(Path(f"{folder}/vocab.json").read_text()), merges=merges)
        ids = tokenizer(text, truncation=True, max_length=77).input_ids
        inputs = dict(input_ids=torch.tensor([ids + [49407] * (77 - len(ids))]))
    else:
        inputs = dict(pixel_values=torch.zeros(1, 3, 224, 224, dtype=dtype))
    taken = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            model(**inputs)
            taken.append(time.perf_counter() - started)
    taken = sorted(taken[1:])
    print(json.dumps(dict(load_s=load, encode_s=taken[len(taken) // 2], loaded_mb=loaded, peak_mb=peak())))


def own(encoder, folder, precision, runs, text):
    program = os.environ.get("ENCODER_TIMES", ROOT / "target/release/examples/encoder_times")
    arguments = ["--model", folder, "--encoder", encoder, "--precision", precision, "--runs", runs, "--text", text]
    environment = os.environ | {"LD_LIBRARY_PATH": str(ROOT / ".libtorch/torch/lib")}
    return run([program, *arguments], environment)


def run(command, environment=None):
    output = subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True, text=True)
    return json.loads(output.stdout.strip().splitlines()[-1])


def main(folder, names):
    print("| encoder | precision | text | load s | encode s | peak MB | transformers: load s | encode s | peak MB | speed |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for encoder, model, precision, runs in CASES[name]:
            for text in ["-"] if encoder == "clip-image" else [LONG, SHORT]:
                case = [encoder, Path(folder) / model, precision, runs, text]
                theirs = run([sys.executable, __file__, "--one", *case])
                ours = own(*case)
                kind = {LONG: "77 tokens", SHORT: "short"}.get(text, "")
                row = [encoder if encoder != "t5" else name, precision, kind]
                for times in (ours, theirs):
                    row += [f"{times['load_s']:.1f}", f"{times['encode_s']:.3f}", times["peak_mb"]]
                row.append(f"{theirs['encode_s'] / ours['encode_s']:.2f} ×")
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        encoder, folder, precision, runs, text = sys.argv[2:]
        transformers_times(encoder, folder, precision, int(runs), text)
    else:
        main(sys.argv[1], sys.argv[2:] or list(CASES))
