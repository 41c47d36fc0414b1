"""Write image_text.npz: what transformers gives for the folders of image_text.py, in float64.

In the environment of make_family_goldens.py, with pillow: python
tests/goldens/make_image_text_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.image_text import LABELS, POSITIONS, TEMPLATE, TEXTS, build_clip
from tests.goldens.vision import pictures

found: dict[str, Any] = {}


def read(tokenizer: Tokenizer, texts: list[str]) -> dict[str, torch.Tensor]:
    tokenizer.enable_truncation(POSITIONS)
    tokenizer.enable_padding(pad_id=0, pad_token="!")
    rows = tokenizer.encode_batch(texts)
    ids, mask = [each.ids for each in rows], [each.attention_mask for each in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def embed(net: Any, inputs: dict[str, torch.Tensor]) -> np.ndarray[Any, Any]:
    rows = net.get_text_features(**inputs).pooler_output
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


with tempfile.TemporaryDirectory() as home, torch.no_grad():
    for name, old in (("clip", False), ("clip_old", True)):
        folder = build_clip(Path(home) / name, old=old)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        net = CLIPModel.from_pretrained(folder, dtype=torch.float64).eval()
        texts = [*TEXTS, *(["a cat<|more|> and a dog"] if old else [])]
        found[f"{name}_texts"] = embed(net, read(tokenizer, texts))
        if old:
            continue
        processor = CLIPImageProcessorPil.from_pretrained(folder)
        images = [Image.fromarray(picture) for picture in pictures()]
        pixels = processor(images, return_tensors="pt")["pixel_values"].double()
        rows = net.get_image_features(pixel_values=pixels).pooler_output
        found[f"{name}_images"] = (rows / rows.norm(dim=-1, keepdim=True)).numpy()
        labels = read(tokenizer, [TEMPLATE.replace("{}", label) for label in LABELS])
        logits = net(**labels, pixel_values=pixels).logits_per_image
        found[f"{name}_shares"] = logits.softmax(-1).numpy()

np.savez_compressed(Path(__file__).with_name("image_text.npz"), **found)
