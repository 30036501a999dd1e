"""The package `webuiapi`, a client of A1111's interface, against `ediffi serve`."""

import json
import os

import webuiapi
from PIL import Image, ImageChops


def api(url, **more):
    return webuiapi.WebUIApi(baseurl=f"{os.environ[url]}/sdapi/v1", sampler="DPM++ 2M", steps=4, **more)


client = api("EDIFFI_URL")
drawn = client.txt2img(
    prompt="a red apple, flat style", negative_prompt="blue", seed=7, cfg_scale=3, width=256, height=256, batch_size=1, n_iter=2
)
assert [image.size for image in drawn.images] == [(256, 256)] * 2
assert drawn.info["all_seeds"] == [7, 8] and drawn.info["sampler_name"] == "DPM++ 2M", drawn.info
assert drawn.info["steps"] == 4 and drawn.info["cfg_scale"] == 3 and len(drawn.info["infotexts"]) == 2
assert "Negative prompt: blue" in drawn.info["infotexts"][0] and drawn.parameters["steps"] == 4
assert json.loads(drawn.images[1].text["ediffi:request"])["seed"] == 8

# A token is the password of a user of any name. A seed of -1 is one by chance.
guarded = api("EDIFFI_GUARDED_URL", username="whoever", password="secret")
chance = [one.txt2img(prompt="a cat", width=256, height=256).info["seed"] for one in (client, guarded)]
assert chance[0] != chance[1] and min(chance) >= 0, chance
try:
    api("EDIFFI_GUARDED_URL", username="whoever", password="wrong").txt2img(prompt="a cat")
except RuntimeError as error:
    assert error.args[0] == 401, error
else:
    raise SystemExit("a wrong token is let in")

# The left half is white in the mask, and drawn anew.
given = drawn.images[0].convert("RGB")
mask = Image.new("L", (256, 256), 0)
mask.paste(255, (0, 0, 128, 256))
for more in ({}, {"mask_image": mask, "mask_blur": 0}):
    settings = {"seed": 7, "denoising_strength": 0.5, "cfg_scale": 3, "width": 256, "height": 256, **more}
    again = client.img2img(images=[given], prompt="a green apple, flat style", **settings)
    assert again.image.size == (256, 256) and again.info["denoising_strength"] == 0.5, again.info
    difference = ImageChops.difference(again.image.convert("RGB"), given)
    assert difference.crop((0, 0, 128, 256)).getbbox()
    assert bool(difference.crop((132, 0, 256, 256)).getbbox()) != bool(more)

# What there is, and what there is not.
assert "Euler a" in [sampler["name"] for sampler in client.get_samplers()]
assert [scheduler["name"] for scheduler in client.get_schedulers()][:2] == ["automatic", "karras"]
(model,) = client.util_get_model_names()
client.util_set_model(model)
assert client.util_get_current_model() == model and client.get_progress()["progress"] == 0
client.interrupt()
try:
    client.txt2img(prompt="a cat", sampler_name="UniPC")
except RuntimeError as error:
    assert error.args[0] == 422 and "UniPC" in error.args[1], error
else:
    raise SystemExit("an unknown sampler is drawn with")
