"""Runs the curl examples of a page against `ediffi serve`: each has to succeed."""

import os
import re
import subprocess
import sys

page = open(sys.argv[1], encoding="utf-8").read()
blocks = [block for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S) if "curl" in block]
assert blocks, "the page has no examples"
for block in blocks:
    script = block.replace("http://127.0.0.1:8080", os.environ["EDIFFI_URL"])
    # An answer that is an error fails.
    script = re.sub(r"\bcurl\b", "curl --fail-with-body --silent --show-error", script)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{block}\n{done.stdout}\n{done.stderr}")
print(f"{len(blocks)} examples")
