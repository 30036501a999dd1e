"""Joins what a terminal was sent within a tenth of a second: bars move often, and a recording should be short."""

import json
import sys

path = sys.argv[1]
with open(path) as file:
    head, *events = map(json.loads, file)
joined = []
for time, kind, text in events:
    if joined and time - joined[-1][0] < 0.1 and kind == joined[-1][1]:
        joined[-1][2] += text
    else:
        joined.append([round(time, 2), kind, text])
with open(path, "w") as file:
    # No word of the machine.
    head.pop("timestamp", None)
    head["env"] = {"TERM": "xterm-256color"}
    for line in (head, *joined):
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
