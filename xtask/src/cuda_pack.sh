#!/bin/sh
# Runs the tests that compute on a CUDA device. Needs Python with PyTorch 2.11.0, whose libraries the tests use.
# What each test says is kept in results/ beside this script.
set -u
here=$(cd "$(dirname "$0")" && pwd)
files=$here/files
results=$here/results
rm -rf "$files"
mkdir -p "$files" "$results"
tar -xzf "$here/pack.tar.gz" -C "$files" || exit 2
torch=$(python3 -c '
import os, torch
assert torch.__version__.startswith("2.11.0"), "PyTorch 2.11.0 is needed, this is " + torch.__version__
assert torch.cuda.is_available() or os.environ.get("EDIFFI_TEST_DEVICE") == "cpu", "PyTorch finds no CUDA device"
print(os.path.join(os.path.dirname(torch.__file__), "lib"))') || exit 2
# The tests look for their files where they were built.
built='@BUILT@'
if [ ! -e "$built" ]; then
    mkdir -p "$(dirname "$built")" && ln -sfn "$files" "$built" || exit 2
fi
failed=0
for test in "$files"/bin/*; do
    name=$(basename "$test")
    log=$results/$name.log
    (cd "$files" && LD_LIBRARY_PATH=$torch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout 600 "$test" --test-threads=1 >"$log" 2>&1)
    status=$?
    echo "$name: $(grep '^test result' "$log" || echo "ended with $status")"
    grep -h '^skipped: \| \.\.\. skipped: \|panicked at\|^test .* FAILED' "$log" | head -20
    [ "$status" = 0 ] || failed=$((failed + 1))
done
echo "$failed of $(ls "$files/bin" | wc -l) test binaries failed"
[ "$failed" = 0 ]
