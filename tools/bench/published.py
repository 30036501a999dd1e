"""Published pipelines at full size: folders with random weights in bf16, and what diffusers takes to draw with them.

`side.py` imports it. Dimensions are those of the published configurations, which the fixtures have beside their tables of names and shapes.
"""

import gc
import json
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "ediffi-core/tests/fixtures"
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, hidden_act="quick_gelu", projection_dim=768)
CLIP_G = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu", projection_dim=1280)


def network(family, name):
    """The configuration of a network whose names and shapes a fixture holds."""
    networks = json.loads((CORE / family / "full-size.json").read_text())
    return next(network["config"] for network in networks if network["name"] == name)


class Writer:
    """A folder as diffusers saves it. Weights are random, and written tensor by tensor."""

    def __init__(self, folder, **index):
        sys.path.insert(0, str(CORE / "deepfloyd"))
        import full_size

        self.folder, self.write, self.block = Path(folder), full_size.write, full_size.random_block()
        self.index = dict(_diffusers_version="0.42.1", **index)
        self.folder.mkdir(parents=True)

    def names(self, part, kind):
        library = "transformers" if kind.__module__.startswith("transformers") else "diffusers"
        self.index[part] = [library, kind.__name__]

    def weights(self, part, kind, config):
        """Names and shapes are those of the class; no value is computed."""
        with torch.device("meta"):
            model = kind(**config) if isinstance(config, dict) else kind(config)
        of_transformers = not isinstance(config, dict)
        (config.save_pretrained if of_transformers else model.save_config)(self.folder / part)
        file = "model" if of_transformers else "diffusion_pytorch_model"
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self.write(self.folder / part / f"{file}.safetensors", shapes, self.block)
        self.names(part, kind)

    def scheduler(self, part, scheduler):
        scheduler.save_config(self.folder / part)
        self.names(part, type(scheduler))

    def text(self, part, kind, config):
        from transformers import CLIPTextConfig

        self.weights(part, kind, CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1, **config))

    def tokenizer(self, part, pad="<|endoftext|>"):
        sys.path.insert(0, str(ROOT / "ediffi-encoders/comparison"))
        from make_models import clip_vocabulary
        from transformers import CLIPTokenizer

        vocab, merges = clip_vocabulary()
        merges = [tuple(line.split(" ")) for line in merges.split("\n")[1:] if line]
        CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77).save_pretrained(self.folder / part)
        self.names(part, CLIPTokenizer)

    def nothing(self, *parts):
        self.index.update({part: [None, None] for part in parts})

    def close(self):
        (self.folder / "model_index.json").write_text(json.dumps(self.index, indent=2))


def stable_diffusion(folder):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    writer = Writer(folder, _class_name="StableDiffusionPipeline", requires_safety_checker=False)
    writer.nothing("feature_extractor", "image_encoder", "safety_checker")
    # Of the published folder is PNDM, whose first step evaluates the network twice.
    writer.scheduler("scheduler", DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1))
    writer.tokenizer("tokenizer")
    writer.text("text_encoder", CLIPTextModel, CLIP_L)
    writer.weights("unet", UNet2DConditionModel, network("stable-diffusion", "sd-1"))
    writer.weights("vae", AutoencoderKL, network("stable-diffusion", "vae-sd"))
    writer.close()


def sdxl(folder, refiner):
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kind = "StableDiffusionXLImg2ImgPipeline" if refiner else "StableDiffusionXLPipeline"
    writer = Writer(folder, _class_name=kind, force_zeros_for_empty_prompt=not refiner)
    writer.nothing("feature_extractor", "image_encoder")
    if refiner:
        writer.index["requires_aesthetics_score"] = True
        writer.nothing("text_encoder", "tokenizer")
    else:
        writer.text("text_encoder", CLIPTextModel, CLIP_L)
        writer.tokenizer("tokenizer")
    writer.scheduler("scheduler", EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1))
    writer.tokenizer("tokenizer_2", "!")
    writer.text("text_encoder_2", CLIPTextModelWithProjection, CLIP_G)
    writer.weights("unet", UNet2DConditionModel, network("stable-diffusion", "sdxl-refiner" if refiner else "sdxl-base"))
    writer.weights("vae", AutoencoderKL, network("stable-diffusion", "vae-sdxl"))
    writer.close()


def karlo(folder):
    from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
    from transformers import CLIPTextModelWithProjection

    writer = Writer(folder, _class_name="UnCLIPPipeline")
    writer.tokenizer("tokenizer")
    writer.text("text_encoder", CLIPTextModelWithProjection, CLIP_L)
    writer.scheduler("prior_scheduler", UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0))
    writer.scheduler("decoder_scheduler", UnCLIPScheduler(variance_type="learned_range"))
    writer.scheduler("super_res_scheduler", UnCLIPScheduler())
    writer.weights("prior", PriorTransformer, network("unclip", "prior"))
    writer.weights("text_proj", UnCLIPTextProjModel, network("unclip", "text_proj"))
    writer.weights("decoder", UNet2DConditionModel, network("unclip", "decoder"))
    enlarger = network("unclip", "super_res")
    writer.weights("super_res_first", UNet2DModel, enlarger)
    writer.weights("super_res_last", UNet2DModel, dict(enlarger, sample_size=None))
    writer.close()


#: Folders by name.
MAKERS = {
    "sd-1.5": stable_diffusion,
    "sdxl-base": lambda folder: sdxl(folder, refiner=False),
    "sdxl-refiner": lambda folder: sdxl(folder, refiner=True),
    "karlo": karlo,
}


class Whole:
    """A picture from its text on, with a few steps of each network."""

    def __init__(self, job, kind):
        self.folder, self.kind = ROOT / job["folder"], kind
        self.refiner = ROOT / job["refiner"] if job["refiner"] else None
        self.text, self.steps = job["text"], job["steps"]

    def open(self, folder):
        import diffusers
        from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

        # Where a saved Karlo looks for its class.
        diffusers.UnCLIPTextProjModel = UnCLIPTextProjModel
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=self.kind)
        pipe.set_progress_bar_config(disable=True)
        for name, part in pipe.components.items():
            if "unet" in name or name in ("decoder", "vae", "super_res_first", "super_res_last"):
                part.to(memory_format=torch.channels_last)
        return pipe

    def load(self):
        self.pipe = self.open(self.folder)

    def watch(self, scheduler):
        """When the steps of a sampler ended."""
        step, ends = scheduler.step, []

        def timed(*arguments, **settings):
            result = step(*arguments, **settings)
            ends.append(time.perf_counter())
            return result

        scheduler.step = timed
        return ends

    def without_bf16(self):
        """PyTorch has no kernel of the one enlargement of Karlo in bf16: it is computed in f32."""
        interpolate = torch.nn.functional.interpolate

        def widened(x, *arguments, **settings):
            return interpolate(x.float(), *arguments, **settings).to(x.dtype)

        torch.nn.functional.interpolate = widened if self.kind == torch.bfloat16 else interpolate

    def draw(self):
        """What one step of each network takes, added up: from the end of its first step to the end of its second."""
        pipe, steps, kind = self.pipe, self.steps, type(self.pipe).__name__
        if kind == "UnCLIPPipeline":
            self.without_bf16()
            watched = [self.watch(getattr(pipe, f"{part}_scheduler")) for part in ("prior", "decoder", "super_res")]
            names = dict(prior="prior", decoder="base", super_res="sr-256")
            pipe(self.text, **{f"{part}_num_inference_steps": steps[stage] for part, stage in names.items()})
        elif self.refiner:
            common = dict(prompt=self.text, num_inference_steps=steps["base"])
            watched = [self.watch(pipe.scheduler)]
            latents = pipe(denoising_end=0.5, output_type="latent", **common).images
            # One network in memory at a time.
            del pipe, self.pipe
            gc.collect()
            second = self.open(self.refiner)
            watched.append(self.watch(second.scheduler))
            second(image=latents, denoising_start=0.5, **common)
        else:
            watched = [self.watch(pipe.scheduler)]
            pipe(self.text, num_inference_steps=steps["base"])
        return sum(ends[1] - ends[0] for ends in watched)
