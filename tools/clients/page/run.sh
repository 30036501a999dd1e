#!/usr/bin/env bash
# Tests the painting page in a real browser: `run.sh [folder for screenshots]`.
#
# It starts `ediffi serve` with the shipped model on a free port and ends it. Set EDIFFI to a built command, else Cargo builds one;
# set EDIFFI_URL to test a server that runs already; set CHROMIUM to another browser than /usr/bin/chromium.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
shots="${1:+$(realpath "$1")}"

[ -d "$here/node_modules/playwright-core" ] || npm install --prefix "$here" --no-package-lock --no-audit --no-fund --silent

url="${EDIFFI_URL:-}"
if [ -z "$url" ]; then
    if [ -z "${EDIFFI:-}" ]; then
        (cd "$root" && cargo build --release --package ediffi-cli --features draw)
        EDIFFI="${CARGO_TARGET_DIR:-$root/target}/release/ediffi"
    fi
    said="$(mktemp)"
    "$EDIFFI" serve --listen 127.0.0.1:0 --model "icons=$root/models/icons" >"$said" 2>"$said.log" &
    server=$!
    trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -f "$said" "$said.log"' EXIT
    for _ in $(seq 300); do
        url="$(head -n 1 "$said")"
        [ -n "$url" ] && break
        kill -0 "$server" || { cat "$said.log" >&2; exit 1; }
        sleep 0.2
    done
    [ -n "$url" ] || { echo "the server does not start" >&2; cat "$said.log" >&2; exit 1; }
fi

node "$here/test.mjs" "$url" ${shots:+"$shots"}
