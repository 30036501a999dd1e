"""PyTorch's side of a row of `cargo xtask bench`; the bench starts it.

    python side.py side JOB          loads what the job (JSON, as `src/job.rs` has it) names, and evaluates it on demand
    python side.py flops JOB         prints how much one evaluation computes, as PyTorch counts it from the shapes alone
    python side.py config NAME FOLDER  writes the configuration of a published network
    python side.py make NAME FOLDER  makes a folder of the full shape of a published model, with random weights
    python side.py versions          prints the versions of what is compared

A side prints one line of JSON when it has loaded and evaluated once, and one for every line `run`, until its input says `end`.
PyTorch gets what a good user gives it: channels-last maps, inference mode, and `torch.compile` where the job says so.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
FULL_SIZE = ROOT / "ediffi-core/tests/fixtures/deepfloyd"
ENCODERS = ROOT / "ediffi-encoders/comparison"
ICONS = ROOT / "tools/icons/comparison"
KINDS = {"f32": torch.float32, "bf16": torch.bfloat16}
# Pictures of a training step.
PICTURES = 32


def room(folder):
    """Lets Python import the programs of another folder of this checkout."""
    sys.path.insert(0, str(folder))


def say(**reply):
    print(json.dumps(reply), flush=True)


def timed(work):
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


class Published:
    """A U-Net of DeepFloyd IF in diffusers; each picture is a row with the text and a row without."""

    def __init__(self, job):
        from diffusers import UNet2DConditionModel

        self.unet, self.folder, self.job = UNet2DConditionModel, ROOT / job["folder"] / "unet", job
        self.rows, self.kind = 2 * job["pictures"], KINDS[job["precision"]]

    def load(self):
        return self.unet.from_pretrained(self.folder, torch_dtype=self.kind).eval().to(memory_format=torch.channels_last)

    def empty(self):
        return self.unet.from_config(self.unet.load_config(self.folder)).eval()

    def inputs(self, kind):
        config, side = self.unet.load_config(self.folder), self.job["side"]
        x = torch.randn(self.rows, config["in_channels"], side, side, dtype=kind)
        inputs = dict(sample=x.contiguous(memory_format=torch.channels_last), timestep=torch.tensor(500))
        inputs["encoder_hidden_states"] = torch.randn(self.rows, 77, config["encoder_hid_dim"], dtype=kind)
        if config["class_embed_type"] == "timestep":
            inputs["class_labels"] = torch.full((self.rows,), 250)
        return inputs

    def call(self, network):
        return lambda inputs: network(**inputs, return_dict=False)


class Shipped:
    """A network of the shipped model: the second implementation that the comparison of training has."""

    def __init__(self, job):
        room(ICONS)
        from training_speed import UNet

        model = ROOT / "models/icons"
        stages = json.loads((model / "pipeline.json").read_text())["stages"]
        (stage,) = (stage for stage in stages if stage["name"] == job["stage"])
        self.network, self.config, self.job = UNet, json.loads((model / stage["network"]).read_text()), job
        # The expert for the highest noise: it has the network of its stage.
        self.weights = model / stage["experts"][0]["weights"]

    def empty(self):
        return self.network(self.config).eval()

    def load(self):
        from safetensors.torch import load_file

        network = self.empty()
        network.load_state_dict(load_file(self.weights))
        network = network.to(KINDS[self.job["precision"]], memory_format=torch.channels_last)
        # As in this library, the embedding of the noise level is f32 in any case.
        network.noise1.float(), network.noise2.float()
        return network

    def inputs(self, kind):
        rows, side, context = self.job["rows"], self.job["side"], self.config["context"]
        picture = lambda: torch.randn(rows, 3, side, side, dtype=kind)
        shapes = {name: (rows, context[name]["tokens"], context[name]["width"]) for name in ("t5", "clip_text")}
        shapes["clip_text_pooled"] = (rows, context["clip_text"]["pooled"])
        if context["clip_image"] is not None:
            shapes["clip_image"] = (rows, context["clip_image"])
        conditioning = {name: torch.randn(shape, dtype=kind) for name, shape in shapes.items()}
        low_res = picture() if self.config["low_res"] else None
        return dict(x=picture(), c_noise=torch.zeros(rows), conditioning=conditioning, low_res=low_res)

    def call(self, network):
        """The text is projected once, as this library does it, and not in every step."""
        body = torch.compile(network.evaluate) if self.job["compile"] else network.evaluate
        known = []

        def evaluate(inputs):
            if not known:
                known.extend(network.context(**inputs["conditioning"]))
            return body(inputs["x"], inputs["c_noise"], *known, inputs["low_res"])

        return evaluate


class Encoder:
    """T5 or a half of CLIP in `transformers`, on ids that are filled up, as its pipelines do."""

    CLASSES = {"t5": "T5EncoderModel", "clip-text": "CLIPTextModelWithProjection", "clip-image": "CLIPVisionModelWithProjection"}

    def __init__(self, job):
        import transformers

        self.transformers, self.folder, self.job = transformers, ROOT / job["folder"], job
        self.model = getattr(transformers, self.CLASSES[job["what"]])

    def load(self):
        return self.model.from_pretrained(self.folder, dtype=KINDS[self.job["precision"]]).eval()

    def empty(self):
        return self.model(self.model.config_class.from_pretrained(self.folder)).eval()

    def inputs(self, kind):
        what, text = self.job["what"], self.job.get("text")
        if what == "clip-image":
            return dict(pixel_values=torch.zeros(1, 3, 224, 224, dtype=kind))
        if what == "t5":
            import sentencepiece

            tokens = self.job["tokens"]
            ids = (sentencepiece.SentencePieceProcessor(model_file=f"{self.folder}/spiece.model").encode(text) + [1])[-tokens:]
            filling = [0] * (tokens - len(ids))
            mask = torch.tensor([[1] * len(ids) + filling])
            return dict(input_ids=torch.tensor([ids + filling]), attention_mask=mask)
        merges = [tuple(line.split(" ")) for line in (self.folder / "merges.txt").read_text().split("\n")[1:] if line]
        vocabulary = json.loads((self.folder / "vocab.json").read_text())
        ids = self.transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)(text, truncation=True, max_length=77).input_ids
        return dict(input_ids=torch.tensor([ids + [49407] * (77 - len(ids))]))

    def call(self, network):
        return lambda inputs: network(**inputs)


def alternative(job):
    from alternatives import Alternative

    return Alternative(job)


PROGRAMS = {"alternative": alternative, "published": Published, "shipped": Shipped, "t5": Encoder, "clip-text": Encoder, "clip-image": Encoder}


def side(job):
    torch.set_num_threads(job["threads"])
    if job["what"] == "train":
        return train(job)
    if job["what"] == "whole":
        return whole(job)
    program = PROGRAMS[job["what"]](job)
    inputs = program.inputs(KINDS[job["precision"]])
    # What is compiled under inference mode would be compiled again for each kind of tensor.
    if job["compile"]:
        # Weights become constants, which are packed as well.
        import torch._inductor.config as inductor

        inductor.freezing = True
    with torch.no_grad() if job["compile"] else torch.inference_mode():
        load, network = timed(program.load)
        if job["compile"] and job["what"] != "shipped":
            network = torch.compile(network)
        evaluate = program.call(network)
        first, _ = timed(lambda: evaluate(inputs))
        say(ready=load, first=first)
        for line in sys.stdin:
            if line.strip() != "run":
                break
            say(seconds=timed(lambda: evaluate(inputs))[0])


def whole(job):
    """A picture of a published pipeline. Each turn has a process of its own; what it says is what a step took in the one picture it drew."""
    import published

    program = published.Whole(job, KINDS[job["precision"]])
    with torch.inference_mode():
        load, _ = timed(program.load)
        first, step = timed(program.draw)
    say(ready=load, first=first)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        say(seconds=step)


def train(job):
    """Steps of the training that the comparison of training has, on the weights and batches that this project's side wrote."""
    room(ICONS)
    import training_speed

    started, steps = time.perf_counter(), []

    def turn(seconds):
        if steps:
            say(seconds=seconds)
        else:
            say(ready=time.perf_counter() - started - seconds, first=seconds)
        steps.append(seconds)
        return sys.stdin.readline().strip() != "run"

    training_speed.train(0, 1, ROOT / job["folder"], 1 << 40, turn, job["threads"])


def flops(job):
    """Of one evaluation. On tensors without values, with attention as its two products."""
    training = job["what"] == "train"
    if training:
        stage = "base" if job["network"] == "base" else "sr256"
        job = dict(job, what="shipped", stage=stage, rows=1, side=64, compile=False)
    program = PROGRAMS[job["what"]](job)
    with torch.device("meta"):
        network = program.empty()
        inputs = program.inputs(torch.float32)
        # `transformers` looks for padding in it, and a tensor without values cannot tell.
        inputs.pop("attention_mask", None)
        evaluate = program.call(network)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            evaluate(inputs)
    # The backward pass is twice the forward pass: gradients by the inputs and by the weights.
    return counter.get_total_flops() * (3 * PICTURES if training else 1)


def make(name, folder):
    """Whole or not at all: the folder appears under its name when it is finished."""
    import shutil

    import published

    folder = Path(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    if name.startswith("IF-"):
        room(FULL_SIZE)
        import full_size

        full_size.make_unet(unfinished, *full_size.UNETS[name], full_size.random_block())
    elif name in published.MAKERS:
        published.MAKERS[name](unfinished)
    else:
        room(ENCODERS)
        import make_models

        shapes = {
            "t5-xxl": lambda: make_models.t5(unfinished, "BF16", 4096, 10240, 64, 24),
            "t5-250m": lambda: make_models.t5(unfinished, "F32", 1024, 2816, 16, 17),
            "clip-l": lambda: make_models.clip_l(unfinished, "F32"),
        }
        shapes[name]()
    unfinished.rename(folder)


def versions():
    import diffusers
    import transformers

    return dict(torch=torch.__version__, diffusers=diffusers.__version__, transformers=transformers.__version__)


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or [""]
    if what == "side":
        side(json.loads(rest[0]))
    elif what == "flops":
        say(flop=flops(json.loads(rest[0])))
    elif what == "config":
        from alternatives import save

        save(*rest)
    elif what == "make":
        make(*rest)
    elif what == "versions":
        say(**versions())
    else:
        sys.exit(__doc__)
