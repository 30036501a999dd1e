"""Networks of several systems at their published size, as `src/alternatives.rs` names them: their configurations, and what PyTorch counts of
them. Nothing has values here.
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "ediffi-core/tests/fixtures"
CONFIGS = ROOT / ".bench/configs"
# Channels of IF's networks of size L; all else is as in size M.
LARGE = {
    "if-i-l": dict(block_out_channels=(320, 640, 960, 1280), cross_attention_dim=1280),
    "if-ii-l": dict(block_out_channels=(160, 320, 640, 960, 1280), cross_attention_dim=1280),
}
#: Fixtures by network: the family, and the name there.
PUBLISHED = {
    "karlo-decoder": ("unclip", "decoder"),
    "karlo-sr256": ("unclip", "super_res"),
    "sd-1.5": ("stable-diffusion", "sd-1"),
    "sdxl-base": ("stable-diffusion", "sdxl-base"),
    "sdxl-refiner": ("stable-diffusion", "sdxl-refiner"),
}


def config(name):
    """The configuration of a published network, as diffusers takes it."""
    import published

    if name in PUBLISHED:
        return published.network(*PUBLISHED[name])
    sys.path.insert(0, str(CORE / "deepfloyd"))
    import full_size

    common = full_size.BASE if name.startswith("if-i-") else full_size.UPSCALE
    own = LARGE.get(name, {})
    if own and "time_embedding_dim" in common:
        own = dict(own, time_embedding_dim=own["block_out_channels"][-1])
    return dict(common, **own)


def kind(name):
    from diffusers import UNet2DConditionModel, UNet2DModel

    return UNet2DModel if name == "karlo-sr256" else UNet2DConditionModel


def save(name, folder):
    folder = Path(folder)
    with torch.device("meta"):
        kind(name)(**config(name)).save_config(folder)
    if name == "karlo-decoder":
        import published

        (folder / "text_proj.json").write_text(json.dumps(published.network("unclip", "text_proj")))


class Alternative:
    """One of the networks, to be counted."""

    def __init__(self, job):
        self.name, self.rows, self.side = job["network"], job["rows"], job["side"]
        self.own = json.loads((CONFIGS / self.name / "config.json").read_text())

    def empty(self):
        if not self.name.startswith("ediffi-"):
            return kind(self.name).from_config(self.own).eval()
        sys.path.insert(0, str(CORE / "ediffi"))
        import make

        layouts = dict(adm=make.Adm, efficient=make.Efficient)
        return layouts[self.own["layout"]](self.own).eval()

    def inputs(self, kind):
        own, rows, side = self.own, self.rows, self.side
        draw = lambda *shape: torch.randn(rows, *shape, dtype=kind)
        if self.name.startswith("ediffi-"):
            context, picture = own["context"], (3, side, side)
            given = dict(x=draw(*picture), c_noise=draw())
            given["low_res"] = draw(*picture)
            given["t5"] = draw(context["t5"]["tokens"], context["t5"]["width"])
            text = context["clip_text"]
            given |= dict(clip_text=draw(text["tokens"], text["width"]), clip_text_pooled=draw(text["pooled"]))
            return dict(given=given | dict(clip_image=draw(context["clip_image"])))
        given = dict(sample=draw(own["in_channels"], side, side), timestep=torch.tensor(500))
        if self.name == "karlo-sr256":
            return given
        width = own.get("encoder_hid_dim") or own["cross_attention_dim"]
        given["encoder_hidden_states"] = draw(81 if self.name == "karlo-decoder" else 77, width)
        if own.get("class_embed_type") == "timestep":
            given["class_labels"] = torch.full((rows,), 250)
        if own.get("class_embed_type") == "identity":
            given["class_labels"] = draw(own["block_out_channels"][-1])
        if own.get("addition_embed_type") == "text_time":
            numbers = (own["projection_class_embeddings_input_dim"] - 1280) // own["addition_time_embed_dim"]
            given["added_cond_kwargs"] = dict(text_embeds=draw(1280), time_ids=draw(numbers))
        return given

    def call(self, network):
        return lambda inputs: network(**inputs)
