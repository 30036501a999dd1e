#!/usr/bin/env bash
# Records docs/recording.cast: a terminal in which pictures are drawn, edited and enlarged. `ediffi` (a release build) is the first argument.
# It needs Python with venv. `asciinema play docs/recording.cast` shows it.
set -euo pipefail
ediffi=$(realpath "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
packages=$root/.clients/recording
export EDIFFI_MODEL=${EDIFFI_MODEL:-$root/models/icons}

mkdir -p "$packages"
if ! cmp -s "$here/requirements.txt" "$packages/requirements.txt"; then
  python3 -m venv "$packages/venv"
  "$packages/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$packages/"
fi

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir "$room/bin"
ln -s "$ediffi" "$room/bin/ediffi"
cd "$room"
PATH="$room/bin:$PATH" TERM=xterm-256color "$packages/venv/bin/asciinema" rec --overwrite --quiet --cols 100 --rows 28 \
  --idle-time-limit 1 --env TERM --title "ediffi: draw, edit, enlarge, replay" --command "bash '$here/session.sh'" "$root/docs/recording.cast"
"$packages/venv/bin/python" "$here/thin.py" "$root/docs/recording.cast"
