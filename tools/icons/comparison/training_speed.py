"""Trains the networks of the small model with this project and with PyTorch, in turn: do they compute the same, and how fast?

    cargo build --release -p train-icons --bin training_speed
    pip install torch==2.11.0 safetensors numpy
    python tools/icons/comparison/training_speed.py FOLDER [--steps 60] [--rounds 3] [--preload LIBRARY] [--only base-f32]

The PyTorch side is a second implementation of the network, the loss and the step. It reads the start weights, the batches and
the settings that this project's program leaves in FOLDER. Each measurement is a process of its own. Prints tables in Markdown;
fails when the first losses differ by more than 1e-3 (in bf16 by 1e-2), or when both count another amount of work.

PyTorch gets what makes it fast on a CPU: channels-last maps, fused AdamW, `_foreach` for the running average,
`DistributedDataParallel` over one process a core, and autocast for bf16. This project's program has jemalloc in the place of the C library's
allocator, and lets it keep what was freed; `--preload` gives PyTorch such a library with the same setting, in rows of their own.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[3]
# How many of the first losses have to agree, and how well.
AGREEING, TOLERANCE = 24, {"f32": 1e-3, "bf16": 1e-2}
# What is compared: networks and precisions.
KINDS = {
    f"{name}-{precision}": (network, precision)
    for name, network in {"base": "base", "sr": "super-resolution"}.items()
    for precision in ("f32", "bf16")
}


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs, embedding, norm):
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.embedding = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, embedding):
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class PositionNorm(nn.LayerNorm):
    """Over the channels of each position."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Of the positions to each other, or to the tokens of the conditioning."""

    def __init__(self, width, context, head, norm):
        super().__init__()
        self.head, self.norm, self.out = head, norm(width), nn.Linear(width, width)
        if context is None:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.kv = nn.Linear(width, width), nn.Linear(context, 2 * width)

    def forward(self, x, tokens):
        n, c, h, w = x.shape
        own = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        if hasattr(self, "qkv"):
            q, k, v = self.qkv(own).chunk(3, dim=-1)
        else:
            q, (k, v) = self.q(own), self.kv(tokens).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (-1, self.head)).transpose(1, 2) for y in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(attended).view(n, h, w, c).permute(0, 3, 1, 2)


class Context(nn.Module):
    """T5's tokens, CLIP's tokens, CLIP's picture and a learned token; and the sum of what is pooled."""

    def __init__(self, config, embedding):
        super().__init__()
        width, text, image = config["width"], config["clip_text"], config["clip_image"]
        self.t5 = nn.Linear(config["t5"]["width"], width)
        self.clip_text = nn.Linear(text["width"], width)
        self.clip_text_pooled = nn.Linear(text["pooled"], embedding)
        self.takes_image = image is not None
        if self.takes_image:
            self.clip_image, self.clip_image_pooled = nn.Linear(image, width), nn.Linear(image, embedding)
        self.null = nn.Parameter(torch.empty(1, 1, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, t5, clip_text, clip_text_pooled, clip_image=None):
        tokens, pooled = [self.t5(t5), self.clip_text(clip_text)], self.clip_text_pooled(clip_text_pooled)
        if self.takes_image:
            tokens.append(self.clip_image(clip_image)[:, None])
            pooled = pooled + self.clip_image_pooled(clip_image)
        return self.norm(torch.cat([*tokens, self.null.expand(len(t5), -1, -1)], dim=1)), pooled


class UNet(nn.Module):
    """The efficient layout with parameters named as in this project's files."""

    def __init__(self, config):
        super().__init__()
        assert config["layout"] == "efficient"
        self.patch, self.sinusoids = config["patch"], config["channels"]
        levels, embedding, pixels = config["levels"], config["embedding_width"], 3 * config["patch"] ** 2
        widths = [level["multiplier"] * config["channels"] for level in levels]

        def norm(channels):
            if config["norm"] == "position":
                return PositionNorm(channels)
            return nn.GroupNorm(config["norm"]["group"], channels)

        # What is kept for the way up takes a number, too.
        self.steps, self.plan = nn.ModuleDict(), []

        def add(kind, layer=None):
            if layer is not None:
                self.steps[str(len(self.plan))] = nn.ModuleDict({kind: layer})
            self.plan.append(kind)

        def fill(level, inputs, width):
            for _ in range(level["blocks"]):
                add("res", ResBlock(inputs, width, embedding, norm))
                inputs = width
            if level["self_attention"]:
                add("self_attention", Attention(width, None, config["head_channels"], norm))
            if level["cross_attention"]:
                add("cross_attention", Attention(width, config["context"]["width"], config["head_channels"], norm))

        last = len(levels) - 1
        for i, level in enumerate(levels):
            if i > 0:
                add("down", nn.Conv2d(widths[i - 1], widths[i], 3, stride=2, padding=1))
            fill(level, widths[i], widths[i])
            if i < last:
                add("push")
        for i, level in reversed(list(enumerate(levels))):
            if i < last:
                add("concat")
            fill(level, widths[i] if i == last else 2 * widths[i], widths[i])
            if i > 0:
                add("up", nn.Conv2d(widths[i], widths[i - 1], 3, padding=1))
        self.noise1, self.noise2 = nn.Linear(self.sinusoids, embedding), nn.Linear(embedding, embedding)
        self.context = Context(config["context"], embedding)
        self.stem = nn.Conv2d(2 * pixels if config["low_res"] else pixels, widths[0], 3, padding=1)
        self.norm, self.out = norm(widths[0]), nn.Conv2d(widths[0], pixels, 3, padding=1)

    def forward(self, x, c_noise, conditioning, low_res=None):
        return self.evaluate(x, c_noise, *self.context(**conditioning), low_res)

    def evaluate(self, x, c_noise, tokens, pooled, low_res=None):
        half = self.sinusoids // 2
        angles = c_noise[:, None] * torch.exp(torch.arange(half) * (-math.log(10_000) / half))
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        # In f32 whatever the rest is in.
        with torch.autocast("cpu", enabled=False):
            embedding = F.silu(self.noise2(F.silu(self.noise1(waves))) + pooled).to(x.dtype)
        if low_res is not None:
            x = torch.cat([x, low_res], dim=1)
        h = self.stem(F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        kept = []
        for number, kind in enumerate(self.plan):
            if kind == "push":
                kept.append(h)
            elif kind == "concat":
                h = torch.cat([h, kept.pop() * math.sqrt(0.5)], dim=1)
            else:
                layer = self.steps[str(number)][kind]
                if kind == "res":
                    h = layer(h, embedding)
                elif kind == "up":
                    h = layer(F.interpolate(h, scale_factor=2, mode="nearest"))
                else:
                    h = layer(h) if kind == "down" else layer(h, tokens)
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), self.patch)


def denoising_loss(network, batch, settings):
    """The error of the predicted picture, weighted with EDM's weight up to a largest ratio of signal to noise."""
    data, sigma = settings["sigma_data"], batch["sigmas"].double()
    c_in, c_noise = 1 / (sigma**2 + data**2).sqrt(), sigma.log() / 4
    weight = (1 + ((data / sigma) ** 2).clamp(max=settings["max_snr"])) / data**2
    noisy = batch["clean"] + batch["noise"] * batch["sigmas"][:, None, None, None]
    conditioning = {name: x for name, x in batch.items() if name.startswith(("t5", "clip"))}
    with torch.autocast("cpu", torch.bfloat16, enabled=settings["bf16"]):
        f = network(noisy * c_in.float()[:, None, None, None], c_noise.float(), conditioning, batch.get("low_res"))
    error = (data * f.float() - batch["clean"]).square().mean(dim=(1, 2, 3))
    return (error * weight.float()).mean()


def start(folder):
    """The network with the start weights, and the settings of its training."""
    with safe_open(folder / "weights.safetensors", "pt") as file:
        settings = json.loads(file.metadata()["training"])
    network = UNet(settings["network"])
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.to(memory_format=torch.channels_last), settings


def train(rank, processes, folder, steps, turn=None, threads=None):
    """Trains on this process's share of the pictures; the first process prints the losses and the speed. After every step,
    `turn` is given its seconds, and may end the training by saying so."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads or max(cores // processes, 1))
    network, settings = start(folder)
    data, pictures = load_file(folder / "batches.safetensors"), settings["pictures"]
    rows = pictures // processes
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    numbers = dict(lr=settings["learning_rate"], betas=settings["betas"], eps=settings["epsilon"])
    optimizer = torch.optim.AdamW(groups, fused=True, **numbers)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / settings["warm_up"], 1))
    average = [p.detach().clone() for p in parameters]
    if processes > 1:
        rendezvous = (folder / "rendezvous").as_uri()
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
        network = nn.parallel.DistributedDataParallel(network)
    losses, taken = [], []
    for step in range(steps):
        started = time.perf_counter()
        first = (step * pictures + rank * rows) % len(data["clean"])
        loss = denoising_loss(network, {name: x[first : first + rows] for name, x in data.items()}, settings)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings["clip"])
        optimizer.step()
        schedule.step()
        decay = min(settings["average"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - decay)
        losses.append(loss.item())
        taken.append(time.perf_counter() - started)
        if turn and turn(taken[-1]):
            return
    losses = torch.tensor(losses, dtype=torch.float64)
    if processes > 1:
        dist.all_reduce(losses)
        dist.destroy_process_group()
    if rank == 0:
        speed = pictures / statistics.median(taken[settings["uncounted"] :])
        print(json.dumps(dict(losses=(losses / processes).tolist(), pictures_per_second=speed)))


def theirs(folder, processes, steps):
    if processes == 1:
        return train(0, 1, folder, steps)
    (folder / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (processes, folder, steps), nprocs=processes)


def multiply_adds(folder):
    """Of one evaluation for one picture, as PyTorch counts them; it knows attention by its two products alone."""
    network, settings = start(folder)
    batch = {name: x[:1] for name, x in load_file(folder / "batches.safetensors").items()}
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoising_loss(network, batch, settings)
    return counter.get_total_flops() // 2


def run(command, environment):
    output = subprocess.run([str(part) for part in command], env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if output.returncode != 0:
        sys.exit(f"{command[0]} failed")
    return json.loads(output.stdout.strip().splitlines()[-1])


def difference(a, b):
    return max(abs(x / y - 1) for x, y in zip(a, b, strict=True))


def compare(folder, network, precision, steps, rounds, preload):
    program = os.environ.get("TRAINING_SPEED", ROOT / "target/release/training_speed")
    cores = len(os.sched_getaffinity(0))
    what = ["--network", network, "--precision", precision]
    rows = {}
    for workers in sorted({1, cores}):
        teams = {1: "all threads on one batch"}.get(workers, f"{workers} batches side by side")
        libraries = {"LD_LIBRARY_PATH": str(Path(os.environ.get("LIBTORCH", ROOT / ".libtorch/torch")) / "lib")}
        rows["ediffi", teams] = ([program, folder, *what, "--workers", workers, "--steps", steps], libraries)
        command = [sys.executable, __file__, folder, "--processes", workers, "--steps", steps]
        rows["PyTorch", teams] = (command, {})
        if preload:
            name = f"PyTorch with {Path(preload).name}"
            rows[name, teams] = (command, {"LD_PRELOAD": preload, "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"})
    results = {row: [] for row in rows}
    for _ in range(rounds):
        for row, (command, environment) in rows.items():
            results[row].append(run(command, environment))
            print(f"{network}, {precision}, {row[0]}, {row[1]}: {results[row][-1]['pictures_per_second']:.1f} pictures/s", file=sys.stderr)

    ours = [result for (who, _), measured in results.items() if who == "ediffi" for result in measured]
    work, rates = ours[0]["gflop_per_picture"], [result["convolution_gflops"] for result in ours]
    rate = statistics.median(rate[precision] for rate in rates)
    speed = {row: statistics.median(result["pictures_per_second"] for result in measured) for row, measured in results.items()}
    best = max(value for (who, _), value in speed.items() if who != "ediffi")
    print(f"\n### {network} in {precision}\n")
    print(f"{cores} cores, PyTorch {torch.__version__}; convolutions in {precision}: {rate:.0f} GFLOP/s; {work:.2f} GFLOP to train on one")
    print(f"picture; medians of {rounds} runs of {steps} steps of 32 pictures.\n")
    print("| | a step's pictures | pictures/s | to PyTorch's best | of the rate of convolutions |\n|---|---|---|---|---|")
    for (who, teams), value in speed.items():
        print(f"| {who} | {teams} | {value:.1f} | {value / best:.2f} × | {100 * value * work / rate:.0f} % |")

    last = len(ours[0]["losses"]) - 1
    shown = sorted({0, min(AGREEING, last + 1) - 1, last})
    print("\n| | a step's pictures | " + " | ".join(f"loss of step {step + 1}" for step in shown) + " | largest difference |")
    print("|---|---|" + "---|" * (len(shown) + 1))
    apart, first_team = 0.0, next(iter(results))[1]
    for (who, teams), measured in results.items():
        # In bf16 the sums of other batches round otherwise: there, like is compared with like.
        losses, reference = measured[0]["losses"], results["ediffi", teams if precision == "bf16" else first_team][0]["losses"]
        first = difference(losses[:AGREEING], reference[:AGREEING])
        cells = [f"{losses[step]:.6f}" for step in shown]
        told = "" if losses is reference else f"{first:.1e} ({difference(losses, reference):.1e} in all steps)"
        print(f"| {who} | {teams} | " + " | ".join(cells) + f" | {told} |")
        apart = max(apart, first)
        if not all(map(math.isfinite, losses)):
            sys.exit(f"{who}: a loss is not finite")
    counted = multiply_adds(folder)
    print(f"\nThe first {min(AGREEING, steps)} losses differ by {apart:.1e} at most.")
    if apart > TOLERANCE[precision] or min(AGREEING, steps) < 20:
        sys.exit(f"the losses do not agree within {TOLERANCE[precision]} over 20 steps")
    if counted != ours[0]["multiply_adds"]:
        sys.exit(f"PyTorch counts {counted} multiply-adds, this project {ours[0]['multiply_adds']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="steps of each run, the first few of which are not timed")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turn")
    parser.add_argument("--preload", help="an allocator for PyTorch")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS), help="which network in which precision")
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.processes:
        theirs(folder, arguments.processes, arguments.steps)
    else:
        for kind in arguments.only:
            compare(folder, *KINDS[kind], arguments.steps, arguments.rounds, arguments.preload)
