"""Compares what `cargo run --example lora` has trained with what diffusers makes of its file by PEFT.

    python3 lora_peft.py UNET OUT

UNET is a folder that diffusers opens as a UNet2DConditionModel, or one with config.json and weights.safetensors, as this library's fixtures
have them. It needs torch, diffusers and peft.
"""

import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file


def opened(folder):
    """The network, in f32."""
    bare = folder / "weights.safetensors"
    if not bare.is_file():
        return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    network = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(bare).items()})
    return network


def main():
    """Prints how far both are apart, and fails where that is more than rounding."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    unet, out = Path(sys.argv[1]), Path(sys.argv[2])
    seen = load_file(out / "seen.safetensors")
    network = opened(unet).eval()

    def answer():
        with torch.no_grad():
            return network(seen["sample"], seen["timestep"], seen["text"]).sample

    before = answer()
    network.load_lora_adapter(out, weight_name="pytorch_lora_weights.safetensors", prefix="unet")
    config = next(iter(network.peft_config.values()))
    after = answer()
    moved = (after - before).abs().max().item()
    apart = (after - seen["answer"]).abs().max().item()
    print(f"rank {config.r}, alpha {config.lora_alpha}, targets {sorted(config.target_modules)}")
    print(f"the LoRA moves the answer by {moved:.3g}; diffusers and ediffi are {apart:.3g} apart")
    if not (apart < 1e-5 and moved > 100 * apart):
        sys.exit("they are not the same network")


if __name__ == "__main__":
    main()
