"""How large the parts of published pipelines are, and what one evaluation of each computes: the table of docs/alternatives.md.

    .bench/venv/bin/python tools/bench/counts.py

Parameters are those of the classes of diffusers and `transformers` with the published dimensions; multiply-adds are counted by PyTorch from the
shapes of one evaluation for one picture, with attention as its two products. Nothing is allocated.
"""

import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import published

sys.path.insert(0, str(published.CORE / "deepfloyd"))
import full_size


def count(model, *inputs, **named):
    """Billions of parameters, and billions of multiply-adds."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(*inputs, **named)
    return sum(tensor.numel() for tensor in model.parameters()) / 1e9, counter.get_total_flops() / 2e9


def unet(config, side, tokens, width, **named):
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(**config).eval()
    x = torch.zeros(1, config["in_channels"], side, side)
    return count(model, x, torch.tensor(500), encoder_hidden_states=torch.zeros(1, tokens, width), **named)


def decoder(side):
    """What decodes latents."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(**published.network("stable-diffusion", "vae-sdxl"))
    model = torch.nn.Sequential(vae.post_quant_conv, vae.decoder).eval()
    return count(model, torch.zeros(1, 4, side, side))


def clip(config):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **config)).eval()
    return count(model, input_ids=torch.zeros(1, 77, dtype=torch.long))


def t5():
    from transformers import T5Config, T5EncoderModel

    return count(T5EncoderModel(T5Config(**full_size.T5_XXL)).eval(), input_ids=torch.zeros(1, 77, dtype=torch.long))


def prior():
    from diffusers import PriorTransformer

    x, text = torch.zeros(1, 768), torch.zeros(1, 77, 768)
    return count(PriorTransformer(**published.network("unclip", "prior")).eval(), x, torch.tensor(500), x, text)


def enlarger(side):
    from diffusers import UNet2DModel

    return count(UNet2DModel(**published.network("unclip", "super_res")).eval(), torch.zeros(1, 6, side, side), torch.tensor(500))


def parts():
    """Of each pipeline: part, parameters and multiply-adds."""
    xl = published.network("stable-diffusion", "sdxl-base")
    told = lambda numbers: dict(added_cond_kwargs=dict(text_embeds=torch.zeros(1, 1280), time_ids=torch.zeros(1, numbers)))
    base, upscale = (full_size.UNETS[name][1] for name in ("IF-I-M", "IF-II-M"))
    karlo = published.network("unclip", "decoder")
    return {
        "Stable Diffusion 1.5, 512²": [
            ("CLIP-L", clip(published.CLIP_L)),
            ("U-Net, 64² latents", unet(published.network("stable-diffusion", "sd-1"), 64, 77, 768)),
            ("decoder", decoder(64)),
        ],
        "SDXL, 1024²": [
            ("CLIP-L", clip(published.CLIP_L)),
            ("OpenCLIP-G", clip(published.CLIP_G)),
            ("base, 128² latents", unet(xl, 128, 77, 2048, **told(6))),
            ("refiner, 128² latents", unet(published.network("stable-diffusion", "sdxl-refiner"), 128, 77, 1280, **told(5))),
            ("decoder", decoder(128)),
        ],
        "Karlo, 256²": [
            ("CLIP-L", clip(published.CLIP_L)),
            ("prior", prior()),
            ("decoder, 64²", unet(karlo, 64, 81, 1536, class_labels=torch.zeros(1, 1280))),
            ("super-resolution, 256²", enlarger(256)),
        ],
        "DeepFloyd IF, sizes I-M and II-M, 256²": [
            ("T5-XXL", t5()),
            ("IF-I-M, 64²", unet(base, 64, 77, 4096)),
            ("IF-II-M, 256²", unet(upscale, 256, 77, 4096, class_labels=torch.zeros(1))),
        ],
    }


def main():
    print("| pipeline | part | parameters, G | multiply-adds of an evaluation, G |\n| --- | --- | --- | --- |")
    with torch.device("meta"):
        for pipeline, counted in parts().items():
            for index, (part, (parameters, products)) in enumerate(counted):
                print(f"| {pipeline if index == 0 else ''} | {part} | {parameters:.3f} | {products:.0f} |")


if __name__ == "__main__":
    main()
