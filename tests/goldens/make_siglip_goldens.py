"""Write siglip.json and siglip.npz: SentencePiece's model, and what transformers gives in float64.

In the environment of make_family_goldens.py, with pillow, sentencepiece and protobuf: python
tests/goldens/make_siglip_goldens.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from PIL import Image
from transformers import SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.siglip import FILE, LABELS, POSITIONS, TEMPLATE, TEXTS, build_siglip
from tests.goldens.vision import pictures

WORDS = (
    "this is a photo of the cat a sleeping dog two red birds it is its the dog and the cat sleep "
    "zebra well known cats dogs photos"
)


def train(home: Path) -> Path:
    """Train a Unigram whose first ids are those of SigLIP's: padding, end, unknown."""
    (home / "words.txt").write_text("\n".join([WORDS, *WORDS.split()] * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(home / "words.txt"),
        model_prefix=str(home / "spiece"),
        model_type="unigram",
        vocab_size=45,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return home / "spiece.model"


def unit(rows: Any) -> np.ndarray[Any, Any]:
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


with tempfile.TemporaryDirectory() as name, torch.no_grad():
    home = Path(name)
    model = train(home)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    count = range(pieces.get_piece_size())
    listed = [(pieces.id_to_piece(at), round(pieces.get_score(at), 6)) for at in count]
    tokenizer = SiglipTokenizer(str(model), model_max_length=POSITIONS)
    options: dict[str, Any] = {"padding": "max_length", "truncation": True}
    plain = [tokenizer(text, truncation=True)["input_ids"] for text in TEXTS]
    FILE.write_text(json.dumps({"pieces": listed, "ids": plain}, ensure_ascii=False) + "\n")

    folder = build_siglip(home / "siglip")
    net = SiglipModel.from_pretrained(folder, dtype=torch.float64).eval()
    read = {"return_tensors": "pt", **options}
    ids = tokenizer(list(TEXTS), **read)["input_ids"]
    found: dict[str, Any] = {"texts": unit(net.get_text_features(input_ids=ids).pooler_output)}
    images = [Image.fromarray(picture) for picture in pictures()]
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    pixels = processor(images, return_tensors="pt")["pixel_values"].double()
    found["images"] = unit(net.get_image_features(pixel_values=pixels).pooler_output)
    labels = tokenizer([TEMPLATE.replace("{}", label) for label in LABELS], **read)["input_ids"]
    logits = net(input_ids=labels, pixel_values=pixels).logits_per_image
    found["shares"] = logits.sigmoid().numpy()

np.savez_compressed(Path(__file__).with_name("siglip.npz"), **found)
