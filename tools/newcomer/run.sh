#!/usr/bin/env bash
# Does what docs/first-steps.md says, with a photograph and a canvas as a reader would bring them. `ediffi` is the first argument. Installing is
# left out: `cargo xtask ci` does it from the packaged crates.
set -euo pipefail
ediffi=$(realpath "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export EDIFFI_MODEL=${EDIFFI_MODEL:-$root/models/icons}

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir "$room/bin" "$room/pictures"
ln -s "$ediffi" "$room/bin/ediffi"
cp "$here/photo.jpg" "$here/canvas.png" "$room/pictures"
cd "$room/pictures"
# Commands stand in blocks of `sh`; those that install, in one of `bash`.
sed -n '/^```sh$/,/^```$/p' "$root/docs/first-steps.md" | grep -v '^```' >"$room/commands.sh"
PATH="$room/bin:$PATH" bash -euo pipefail -x "$room/commands.sh" || { echo "docs/first-steps.md does not work"; exit 1; }
for picture in apple painted ink another-1 another-4 large same wide; do
  [ -s "$picture.png" ] || { echo "$picture.png is not there"; exit 1; }
done
