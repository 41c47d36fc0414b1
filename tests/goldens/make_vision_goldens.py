"""Write vision.npz: what transformers gives for the folders of vision.py, in float64.

In the environment of make_family_goldens.py, with pillow: python
tests/goldens/make_vision_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    Dinov2ForImageClassification,
    Dinov2Model,
    ViTForImageClassification,
    ViTModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.vision import (
    BICUBICS,
    CLIP_EDGES,
    DINO_SIZES,
    IMAGE,
    build_dinov2,
    build_vit,
    clip_processing,
    pictures,
)

found: dict[str, Any] = {}


def processed(processor: Any) -> torch.Tensor:
    images = [Image.fromarray(picture) for picture in pictures()]
    return processor(images, return_tensors="pt")["pixel_values"]


with tempfile.TemporaryDirectory() as home, torch.no_grad():
    folder = build_vit(Path(home) / "vit")
    pixels = processed(ViTImageProcessorPil.from_pretrained(folder))
    found["vit_pixels"] = pixels.numpy()
    net = ViTForImageClassification.from_pretrained(folder, dtype=torch.float64).eval()
    found["vit_logits"] = net(pixels.double()).logits.numpy()
    folder = build_vit(Path(home) / "encoder", head=False)
    bare = ViTModel.from_pretrained(folder, dtype=torch.float64).eval()
    found["vit_states"] = bare(pixels.double()).last_hidden_state.numpy()

    pixels = processed(CLIPImageProcessorPil(**clip_processing(IMAGE + 5))).double()
    for stored in DINO_SIZES:
        folder = build_dinov2(Path(home) / f"dinov2-{stored}", image_size=stored)
        net = Dinov2ForImageClassification.from_pretrained(folder, dtype=torch.float64).eval()
        found[f"dinov2_logits_{stored}"] = net(pixels).logits.numpy()
        folder = build_dinov2(Path(home) / f"bare-{stored}", head=False, image_size=stored)
        bare = Dinov2Model.from_pretrained(folder, dtype=torch.float64).eval()
        found[f"dinov2_states_{stored}"] = bare(pixels).last_hidden_state.numpy()

for n, wanted in BICUBICS:
    eye = torch.eye(n, dtype=torch.float64).reshape(1, n, n, 1)
    weights = torch.nn.functional.interpolate(eye, size=(wanted, 1), mode="bicubic")
    found[f"bicubic_{n}_{wanted}"] = weights.reshape(n, wanted).T.numpy()

for edge in CLIP_EDGES:
    processor = CLIPImageProcessorPil(**clip_processing(edge))
    found[f"clip_pixels_{edge}"] = processed(processor).numpy()

np.savez_compressed(
    Path(__file__).with_name("vision.npz"), **{k: v.astype(np.float32) for k, v in found.items()}
)
