#!/usr/bin/env bash
# Speaks to `ediffi serve` as others do: the official OpenAI packages for Python and npm, webuiapi, and the curl examples of docs/server.md.
# `ediffi` is the first argument. Packages go to .clients/api. It needs Python with venv, Node.js with npm, and curl.
set -euo pipefail
ediffi=$(realpath "$1")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
packages=$root/.clients/api
export EDIFFI_MODEL=${EDIFFI_MODEL:-$root/models/icons}

mkdir -p "$packages"
# Installed once for each version of the lists.
if ! cmp -s "$here/requirements.txt" "$packages/requirements.txt"; then
  python3 -m venv "$packages/venv"
  "$packages/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$packages/"
fi
if ! cmp -s "$here/package.json" "$packages/package.json" || [ ! -d "$packages/node_modules" ]; then
  cp "$here/package.json" "$packages/"
  npm install --silent --no-audit --no-fund --prefix "$packages"
fi

room=$(mktemp -d)
servers=()
end() {
  for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
  wait
  rm -rf "$room"
}
trap end EXIT

# Starts a server on a port that is free, and says where it is.
start() {
  local name=$1
  shift
  "$ediffi" serve --listen 127.0.0.1:0 --device cpu "$@" >"$room/$name.url" 2>"$room/$name.log" &
  servers+=($!)
  for _ in $(seq 300); do
    [ -s "$room/$name.url" ] && break
    sleep 0.1
  done
  [ -s "$room/$name.url" ] || { cat "$room/$name.log"; echo "the server does not start"; exit 1; }
}

printf 'anna secret\nben other\n' >"$room/tokens"
start open
start guarded --tokens "$room/tokens" --queue 1 --queue-of-client 1
EDIFFI_URL=$(sed 's:/$::' "$room/open.url")
EDIFFI_GUARDED_URL=$(sed 's:/$::' "$room/guarded.url")
export EDIFFI_URL EDIFFI_GUARDED_URL

cd "$room"
run() {
  local begin=$SECONDS
  echo "clients: $1"
  "${@:2}" || { tail -20 "$room"/*.log; echo "clients: $1 failed"; exit 1; }
  echo "clients: $1 is done ($((SECONDS - begin)) s)"
}
run "openai of Python" "$packages/venv/bin/python" "$here/openai_package.py"
# Node looks for packages beside the program.
cp "$here/openai_package.mjs" "$packages/"
run "openai of npm" node "$packages/openai_package.mjs"
run "webuiapi" "$packages/venv/bin/python" "$here/webuiapi_package.py"
run "curl of docs/server.md" "$packages/venv/bin/python" "$here/examples_of_docs.py" "$root/docs/server.md"
