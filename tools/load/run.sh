#!/usr/bin/env bash
# Load on `ediffi serve` with locust: 200 clients for ten minutes, cancels, and a kill -9. `ediffi` (a release build) is the first
# argument; `run.py --help` tells of the others. Packages go to .clients/load.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
packages=$root/.clients/load
export EDIFFI_MODEL=${EDIFFI_MODEL:-$root/models/icons}

mkdir -p "$packages"
if ! cmp -s "$here/requirements.txt" "$packages/requirements.txt"; then
  python3 -m venv "$packages/venv"
  "$packages/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$packages/"
fi
exec "$packages/venv/bin/python" "$here/run.py" "$@"
