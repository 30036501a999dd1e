#!/usr/bin/env bash
# A newcomer's first five minutes, as docs/command-line.md and docs/editing.md tell them: draw, repeat, paint, edit, vary, enlarge a picture of
# one's own.
# `ediffi` is the first argument; EDIFFI_MODEL names the model. Run in an empty folder.
set -euo pipefail
ediffi=$1

"$ediffi" draw "a red apple left of a cat, noto style" --seed 7 --preset fast --last-stage sr256 --out apple.png
"$ediffi" again apple.png --out again.png
cmp apple.png again.png

# A red patch at the left is where the apple goes.
printf '%s\n' '{"prompt": "a red apple, noto style", "palette": {"entries": [{"colour": [255, 0, 0], "phrase": "red apple"}]}}' > regions.json
"$ediffi" paint canvas.png regions.json --seed 7 --preset fast --last-stage base --out painted.png
"$ediffi" vary apple.png --preset fast --last-stage base --out varied.png

# Half of it becomes another object; the other half stays.
"$ediffi" edit apple.png "a red apple left of a mushroom, noto style" --mask mask.png --seed 7 --preset fast --last-stage sr256 --out mushroom.png
"$ediffi" edit apple.png "a green apple left of a cat, noto style" --strength 0.5 --preset fast --last-stage sr256 --out green.png

"$ediffi" enlarge photograph.jpg --last-stage sr256 --preset fast --out large.png

printf '%s\n' '{"prompt": "a cat", "last_stage": "base", "preset": "fast"}' '{"prompt": "a dog", "last_stage": "base", "preset": "fast"}' > requests.jsonl
"$ediffi" batch requests.jsonl --out batch
test "$(wc -l < batch/index.jsonl)" -eq 2
