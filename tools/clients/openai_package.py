"""The official package `openai` against `ediffi serve`."""

import base64
import io
import json
import os
import time
import urllib.request
import warnings

import openai
from PIL import Image

URL, GUARDED = os.environ["EDIFFI_URL"], os.environ["EDIFFI_GUARDED_URL"]


def settings(steps=3, **more):
    """The base stage alone, which is quick."""
    return {"seed": 7, "last_stage": "base", "stages": {"base": {"steps": steps}}, **more}


def picture(b64):
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return ("picture.png", file.getvalue(), "image/png")


def refused(kind, call):
    """The error of this class that a call has to raise."""
    try:
        call()
    except kind as error:
        return error
    raise SystemExit(f"no {kind.__name__}")


client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)

# The model, and pictures of it.
(model,) = client.models.list().data
assert client.models.retrieve(model.id) == model and model.object == "model"
answer = client.images.generate(
    model=model.id, prompt="a red apple", n=2, size="auto", quality="auto", user="someone", extra_body={"ediffi": settings()}
)
assert len(answer.data) == 2 and answer.output_format == "png" and answer.background == "opaque"
assert answer.size == "64x64" and answer.usage.total_tokens == answer.usage.input_tokens_details.text_tokens > 0
assert [picture(data.b64_json).size for data in answer.data] == [(64, 64)] * 2
held = picture(answer.data[1].b64_json).text["ediffi:request"]
assert json.loads(held)["prompt"] == "a red apple" and json.loads(held)["seed"] == 8, held
jpeg = client.images.generate(prompt="a cat", output_format="jpeg", output_compression=60, extra_body={"ediffi": settings()})
assert picture(jpeg.data[0].b64_json).format == "JPEG" and jpeg.output_format == "jpeg"
link = client.images.generate(prompt="a cat", response_format="url", extra_body={"ediffi": settings()}).data[0].url
assert Image.open(urllib.request.urlopen(link)).size == (64, 64)

# Words on a canvas: the left half is one region, the right half another.
regions = [{"phrase": "red apple", "mask": "255 0"}, {"phrase": "cat", "mask": "0 255"}]
canvas = {"width": 2, "height": 1, "regions": regions}
painted = client.images.generate(prompt="a red apple left of a cat", extra_body={"ediffi": settings(canvas=canvas)})
held = json.loads(picture(painted.data[0].b64_json).text["ediffi:request"])
assert [region["phrase"] for region in held["canvas"]["regions"]] == ["red apple", "cat"]

# Streams.
events = list(
    client.images.generate(prompt="a red apple", stream=True, partial_images=2, extra_body={"ediffi": settings(8)})
)
assert [event.type.split(".")[1] for event in events] == ["partial_image", "partial_image", "completed"], events
assert [event.partial_image_index for event in events[:2]] == [0, 1]
assert picture(events[-1].b64_json).size == (64, 64) and events[-1].usage.input_tokens > 0
assert picture(events[0].b64_json).format == "PNG"

# Edits: the left half is transparent in the mask, and drawn anew.
given = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
form = {"ediffi": json.dumps(settings())}
edited = client.images.edit(image=png(given), mask=png(mask), prompt="a red apple", extra_body=form)
edited = picture(edited.data[0].b64_json)
right, left = (32, 0, 64, 64), (0, 0, 32, 64)
assert edited.crop(right).tobytes() == given.crop(right).tobytes()
assert edited.crop(left).tobytes() != given.crop(left).tobytes()
events = list(client.images.edit(image=[png(given), png(given)], prompt="a cat", stream=True, extra_body=form))
assert [event.type for event in events] == ["image_edit.completed"], events
with warnings.catch_warnings():
    # OpenAI has no model for it any more.
    warnings.simplefilter("ignore", DeprecationWarning)
    varied = client.images.create_variation(image=png(given), n=1, extra_body=form)
assert picture(varied.data[0].b64_json).size == (64, 64)

# Errors are the package's own classes, and name the field.
error = refused(openai.BadRequestError, lambda: client.images.generate(prompt="a cat", size="1000x999"))
assert error.param == "size" and error.type == "invalid_request_error", error
error = refused(openai.BadRequestError, lambda: client.images.generate(prompt="a cat", background="transparent"))
assert (error.param, error.code) == ("background", "invalid_value"), error
error = refused(openai.BadRequestError, lambda: client.images.generate(prompt="a cat", extra_body={"promtp": "x"}))
assert (error.param, error.code) == ("promtp", "unknown_parameter"), error
damaged = ("picture.png", png(given)[1][:-50], "image/png")
error = refused(openai.BadRequestError, lambda: client.images.edit(image=damaged, prompt="a cat", extra_body=form))
assert error.param == "image", error
error = refused(openai.NotFoundError, lambda: client.images.generate(prompt="a cat", model="dall-e-2"))
assert (error.param, error.code) == ("model", "model_not_found"), error
wrong = openai.OpenAI(base_url=f"{GUARDED}/v1", api_key="wrong", max_retries=0)
assert refused(openai.AuthenticationError, wrong.models.list).code == "invalid_api_key"

# A full queue: one is drawn, one waits.
guarded = openai.OpenAI(base_url=f"{GUARDED}/v1", api_key="secret", max_retries=0)


def native(method, path):
    request = urllib.request.Request(GUARDED + path, method=method, headers={"Authorization": "Bearer secret"})
    return json.load(urllib.request.urlopen(request))


def states():
    return [job["state"] for job in native("GET", "/api/v1/jobs")["jobs"]]


def until(expected):
    end = time.time() + 30
    while states() != expected:
        assert time.time() < end, states()
        time.sleep(0.02)


def forever():
    return guarded.images.generate(prompt="a cat", stream=True, extra_body={"ediffi": settings(1000)})


first = forever()
until(["running"])
second = forever()
until(["queued", "running"])
error = refused(openai.RateLimitError, lambda: guarded.images.generate(prompt="a cat"))
assert error.code == "rate_limit_exceeded" and int(error.response.headers["retry-after"]) >= 1, error
# Who closes a stream cancels the job, and an error comes in mid-stream.
second.close()
until(["cancelled", "running"])
native("POST", f"/api/v1/jobs/{native('GET', '/api/v1/jobs')['jobs'][1]['id']}/cancel")
error = refused(openai.APIError, lambda: list(first))
assert "cancelled" in str(error), error
