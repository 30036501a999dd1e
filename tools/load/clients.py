"""Many clients of `ediffi serve`, for locust: each has a token of its own, and waits as long as a full queue asks for."""

import base64
import itertools
import json
import os
import random
import threading
from collections import Counter

import gevent
from locust import HttpUser, between, events, task
#: What each of them draws, all the same amount of work.
WORK = {"preset": "fast", "last_stage": "sr256"}
PROMPTS = ["a red apple, noto style", "a cat left of a dog", "a star, flat style", "two fish", "a house next to a tree", "a rocket"]
PNG = b"\x89PNG\r\n\x1a\n"

numbers = itertools.count()
counted, guard = Counter(), threading.Lock()
answered = Counter()


def count(what):
    with guard:
        counted[what] += 1


class Client(HttpUser):
    abstract = True
    wait_time = between(0.0, 0.2)

    def on_start(self):
        self.number = next(numbers)
        self.client.headers["Authorization"] = f"Bearer token-{self.number}"

    def prompt(self):
        return {"prompt": random.choice(PROMPTS), "seed": random.getrandbits(31)}

    def come_again(self, response):
        """A full queue is no failure: it says when to come again."""
        count("refused")
        response.success()
        seconds = int(response.headers["Retry-After"])
        if seconds < 1:
            raise SystemExit("a full queue asks nobody to wait")
        # Not all at the same moment.
        gevent.sleep(seconds * random.uniform(1.0, 1.2))


class Native(Client):
    weight = 3

    @task
    def draw(self):
        asked = self.prompt()
        with self.client.post("/api/v1/jobs", json={"request": asked | WORK}, catch_response=True, name="submit") as response:
            if response.status_code == 429:
                return self.come_again(response)
            if response.status_code != 202:
                count("wrong")
                return response.failure(response.text)
            job = response.json()["id"]
        count("accepted")
        ends = 0
        with self.client.get(f"/api/v1/jobs/{job}/events", stream=True, catch_response=True, name="events") as response:
            kind = None
            for line in response.iter_lines():
                if line.startswith(b"event:"):
                    kind = line[6:].strip()
                elif line.startswith(b"data:") and kind == b"job":
                    told = json.loads(line[5:])
                    ends += told["state"] not in ("queued", "running")
            seeds = [image["seed"] for image in told["images"]]
            if told["state"] != "finished" or ends != 1 or seeds != [asked["seed"]]:
                count("wrong")
                return response.failure(f"{told['state']}, {ends} ends, seeds {seeds}")
        with self.client.get(f"/api/v1/jobs/{job}/images/0", catch_response=True, name="picture") as response:
            if not response.content.startswith(PNG):
                count("wrong")
                return response.failure("no picture")
        with guard:
            answered[job] += 1
        count("answered")


class OpenAI(Client):
    weight = 1

    @task
    def draw(self):
        asked = self.prompt()
        body = {"prompt": asked["prompt"], "ediffi": WORK | {"seed": asked["seed"]}}
        with self.client.post("/v1/images/generations", json=body, catch_response=True, name="generations") as response:
            if response.status_code == 429:
                return self.come_again(response)
            if response.status_code != 200:
                count("wrong")
                return response.failure(response.text)
            (data,) = response.json()["data"]
            if not base64.b64decode(data["b64_json"]).startswith(PNG):
                count("wrong")
                return response.failure("no picture")
        count("accepted")
        count("answered")


@events.quitting.add_listener
def write(environment, **_):
    twice = sum(1 for times in answered.values() if times != 1)
    requests = environment.stats.total.num_requests
    result = dict(counted) | {"twice": twice, "requests": requests, "failures": environment.stats.total.num_failures}
    with open(os.environ["EDIFFI_LOAD_RESULT"], "w") as file:
        json.dump(result, file)
