"""Load on `ediffi serve`: many clients for minutes, cancels, and a kill -9, beside the library's own loop.

`run.sh` installs what it needs and calls it. It prints its figures, and writes them into docs/results/server.md if asked.
"""

import argparse
import json
import math
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = {"preset": "fast", "last_stage": "sr256"}


class Serve:
    """A server with its jobs in a folder, and a token for each client."""

    def __init__(self, ediffi, room, clients):
        self.ediffi, self.room = ediffi, room
        self.tokens = room / "tokens"
        self.tokens.write_text("".join(f"client-{n} token-{n}\n" for n in range(clients + 1)))
        self.own = f"Bearer token-{clients}"
        self.start()

    def start(self):
        command = [self.ediffi, "serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--tokens", self.tokens]
        command += ["--keep", self.room / "kept"]
        log = open(self.room / "server.log", "a")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.url = self.process.stdout.readline().strip().rstrip("/")
        if not self.url:
            raise SystemExit((self.room / "server.log").read_text())

    def ask(self, path, body=None):
        request = urllib.request.Request(self.url + path, headers={"Authorization": self.own})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def json(self, path, body=None):
        return json.loads(self.ask(path, body))

    def metric(self, pattern):
        found = re.findall(rf"^{pattern} ([0-9.e+]+)$", self.ask("/metrics").decode(), re.MULTILINE)
        return sum(map(float, found))

    def megabytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)


def processor_seconds(pid):
    """What a process has had of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def library(ediffi, room, pictures):
    """Seconds a picture in the library's own loop, and those of the processors: `ediffi batch`, one picture after the other, without its start."""
    def seconds(count):
        lines = [json.dumps({"prompt": "a cat left of a dog", "seed": seed} | WORK) for seed in range(count)]
        (room / "batch.jsonl").write_text("\n".join(lines))
        with tempfile.TemporaryDirectory(dir=room) as out:
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [ediffi, "batch", room / "batch.jsonl", "--together", "1", "--device", "cpu", "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return time.monotonic() - began, used
    short = max(pictures // 10, 1)
    first, whole = seconds(short), seconds(short + pictures)
    return tuple((then - start) / pictures for start, then in zip(first, whole))


def load(server, room, clients, minutes, alone):
    """Locust's clients for minutes. What each turn measured, memory over the time, and what the clients counted.

    A turn is a minute of load. The server is stopped between two, and `alone` measures the library meanwhile: a machine that is slower at
    times is slower for both.
    """
    result = room / "load.json"
    environment = os.environ | {"EDIFFI_LOAD_RESULT": str(result)}
    command = ["-m", "locust", "--headless", "--only-summary", "--locustfile", HERE / "clients.py", "--host", server.url]
    began = time.monotonic()
    alone()
    # What the pauses take, and a little more.
    pauses = (time.monotonic() - began) * math.ceil(minutes) * 1.2
    command += ["--users", clients, "--spawn-rate", 20, "--run-time", round(minutes * 60 + pauses), "--stop-timeout", 600]
    log = open(room / "locust.log", "w")
    locust = subprocess.Popen([sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log)
    memory, turns, loaded = [], [], 0.0

    def state():
        memory.append((loaded + time.monotonic() - began, server.megabytes()))
        processors = processor_seconds(locust.pid), processor_seconds(server.process.pid)
        return time.monotonic(), server.metric(r"ediffi_images_total"), *processors, server.metric("ediffi_jobs_waiting")

    while loaded < minutes * 60 and locust.poll() is None:
        began = time.monotonic()
        # Whoever was told to come again while the server stood still comes now.
        time.sleep(5)
        first = last = state()
        while time.monotonic() - began < min(60, minutes * 60):
            time.sleep(5)
            last = state()
        # The first turn finds an empty queue.
        counts = loaded > 0 and min(first[4], last[4]) > 0
        loaded += time.monotonic() - began
        seconds, pictures, of_clients, of_server = (then - start for start, then in zip(first[:4], last[:4]))
        turn = {"rate": pictures / seconds, "clients": of_clients / seconds, "used": of_server / max(pictures, 1)}
        server.process.send_signal(signal.SIGSTOP)
        try:
            turn["own"], turn["own used"] = alone()
        finally:
            server.process.send_signal(signal.SIGCONT)
        if counts:
            turns.append(turn)
    # It waits for those who wait, and writes what it has counted.
    locust.wait()
    summary = (room / "locust.log").read_text()
    if not turns or not result.exists():
        raise SystemExit(summary + "no load behind the first minute")
    return turns, memory, json.loads(result.read_text()) | {"summary": summary}


def cancels(server, count):
    """Milliseconds from asking for a cancel to the event that says so, of jobs at random moments of a whole picture of 1024 pixels."""
    latencies = []
    for seed in range(count):
        job = server.json("/api/v1/jobs", {"request": {"prompt": "a cat left of a dog", "seed": seed}})["id"]
        request = urllib.request.Request(f"{server.url}/api/v1/jobs/{job}/events", headers={"Authorization": server.own})
        with urllib.request.urlopen(request) as events:
            asked, ended = [], None
            kind = b""
            for line in events:
                kind = line[6:].strip() if line.startswith(b"event:") else kind
                if not line.startswith(b"data:") or kind != b"job":
                    continue
                state = json.loads(line[5:])["state"]
                if state == "running" and not asked:
                    asked.append(None)

                    def cancel():
                        time.sleep(random.uniform(0.0, 2.0))
                        asked[0] = time.monotonic()
                        server.ask(f"/api/v1/jobs/{job}/cancel", {})

                    threading.Thread(target=cancel).start()
                elif state not in ("queued", "running"):
                    ended = time.monotonic()
        if state == "cancelled":
            latencies.append((ended - asked[0]) * 1000)
    return latencies


def kill(server, count):
    """Kills a server with -9 in the middle of jobs. How many pictures were there before and are the same behind it, and how many were drawn again."""
    ids = [server.json("/api/v1/jobs", {"request": {"prompt": "a star", "seed": seed} | WORK})["id"] for seed in range(count)]
    while sum(server.json(f"/api/v1/jobs/{job}")["state"] == "finished" for job in ids) < count // 3:
        time.sleep(0.05)
    before = {job: server.ask(f"/api/v1/jobs/{job}/images/0") for job in ids if server.json(f"/api/v1/jobs/{job}")["state"] == "finished"}
    server.end(signal.SIGKILL)
    server.start()
    while not all(server.json(f"/api/v1/jobs/{job}")["state"] == "finished" for job in ids):
        time.sleep(0.2)
    kept = sum(server.ask(f"/api/v1/jobs/{job}/images/0") == picture for job, picture in before.items())
    again = server.metric(r'ediffi_jobs_total\{.*state="finished".*\}')
    return {"jobs": count, "finished before": len(before), "the same after": kept, "drawn after": int(again)}


def processor():
    return re.search(r"model name\s+: (.*)", Path("/proc/cpuinfo").read_text())[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ediffi")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pictures", type=int, default=20, 
                        help="of the library's own loop in each turn; they have to take less than the 15 seconds that a server waits for a request's head")
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--write", action="store_true", help="write docs/results/server.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        server = Serve(options.ediffi, room, options.clients)
        try:
            alone = lambda: library(options.ediffi, room, options.pictures)
            turns, memory, counted = load(server, room, options.clients, options.minutes, alone)
            answered = server.metric(r'ediffi_jobs_total\{.*state="finished".*\}')
            other = server.metric(r"ediffi_jobs_total\{.*\}") - answered
            latencies = sorted(cancels(server, options.cancels))
            killed = kill(server, 15)
        except BaseException:
            print((room / "server.log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            server.process.kill()
        tail = counted.pop("summary")
    of = lambda tell: statistics.median(map(tell, turns))
    ratios = sorted(turn["rate"] * turn["own"] for turn in turns)
    settled = [megabytes for past, megabytes in memory if past > 60] or [memory[-1][1]]
    rows = [
        ("clients, minutes", f"{options.clients}, {options.minutes:g}"),
        ("jobs that were accepted", counted.get("accepted", 0)),
        ("jobs that were answered, each once", counted.get("answered", 0) - counted["twice"]),
        ("jobs that the server counts as finished", int(answered)),
        ("jobs that ended otherwise", int(other)),
        ("refusals of a full queue (429)", counted.get("refused", 0)),
        ("other errors", counted.get("wrong", 0) + counted["failures"]),
        ("turns behind the first minute", len(turns)),
        ("pictures a second: of the server, of the library's own loop", f"{of(lambda t: t['rate']):.3f}, {of(lambda t: 1 / t['own']):.3f}"),
        ("ratio of the two in a turn: median, least and most", f"{statistics.median(ratios):.3f}, {ratios[0]:.3f}, {ratios[-1]:.3f}"),
        ("processors that the clients themselves used meanwhile", f"{of(lambda t: t['clients']):.2f}"),
        ("processor seconds a picture: of the server, of the library's own loop", f"{of(lambda t: t['used']):.3f}, {of(lambda t: t['own used']):.3f}"),
        ("resident memory behind the first minute, least and most, MiB", f"{min(settled):.0f}, {max(settled):.0f}"),
        ("the same, mean of the first and of the last quarter, MiB", ", ".join(f"{q:.0f}" for q in quarters(settled))),
    ]
    if latencies:
        middle, most = statistics.median(latencies), latencies[-1]
        rows.append((f"a cancel of a running job takes, median and most of {len(latencies)}, ms", f"{middle:.0f}, {most:.0f}"))
    rows.append(("kill -9: jobs, finished before, the same after, drawn after", ", ".join(map(str, killed.values()))))
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    print(tail, table, sep="\n")
    if options.write:
        page = ROOT / "docs/results/server.md"
        text = page.read_text()
        machine = f"{processor()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, a release build."
        begin, rest = text.split("<!-- load -->\n", 1)
        page.write_text(f"{begin}<!-- load -->\n{machine}\n\n{table}\n")
    wrong = counted.get("wrong", 0) + counted["failures"] + counted["twice"] + other
    once = counted.get("accepted", 0) == counted.get("answered", 0) == answered
    kept = killed["finished before"] == killed["the same after"]
    if wrong or not once or not kept:
        raise SystemExit("something went wrong: see the table")


def quarters(values):
    part = max(len(values) // 4, 1)
    return statistics.mean(values[:part]), statistics.mean(values[-part:])


main()
