#!/bin/sh
# The run of docs/own-data.md: `tools/photographs/run.sh PROGRAM FOLDER`. PROGRAM is the command `ediffi`; FOLDER gets the packages, the
# pictures, the run, what the model draws of each prompt of the plan, and sheet.png of that. Killed, the same line goes on. It needs
# Python 3.10 or newer with venv.
set -eu
program=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
mkdir -p "$2"
cd "$2"

if [ ! -d pictures ]; then
    python3 -m venv python
    python/bin/pip install --quiet pillow==13.0.0
    python/bin/pip download --quiet --no-deps --dest wheels scikit-learn==1.9.1 scikit-image==0.26.0
    rm -rf new
    python/bin/python "$here/make.py" wheels new
    mv new pictures
fi

begin=new
[ ! -f run/run.json ] || begin=resume
"$program" train --plan "$here/plan.toml" --data pictures --out run --begin $begin --sheet-steps 500 --device cpu

sed -n '/^prompts = \[/,/^\]/p' "$here/plan.toml" | grep -o '"[^"]*"' | sed 's/.*/{"prompt": &, "seed": 1}/' > prompts.jsonl
"$program" batch prompts.jsonl --model run/model --out drawn --device cpu
python/bin/python "$here/sheet.py" drawn sheet.png
