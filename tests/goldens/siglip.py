"""A tiny SigLIP with random weights, as a Hugging Face folder that a test writes anew.

Its SentencePiece model is in siglip.json, as make_siglip_goldens.py trained it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.goldens.families import Case, Tensors
from tests.goldens.vision import write

# No size is a multiple of a tile, and the last pixels of an image make no whole patch.
C, INNER, IMAGE, PATCH, HEADS = 36, 52, 24, 7, 3
TEXT_C, TEXT_INNER, TEXT_HEADS, POSITIONS = 20, 44, 5, 19
PAD, END, UNKNOWN = 1, "</s>", 2
FILE = Path(__file__).with_name("siglip.json")
TEXTS = (
    "a photo of a cat",
    "A  PHOTO\tof a Dog!",
    "it's two red birds, sleeping.",
    "",
    "...",
    "zebra Übung 12 ½ — 日本 🙂",
    "the photo " * 24,
    "[well-known] cats & dogs\n",
)
LABELS = ("cat", "sleeping dog", "two red birds")
TEMPLATE = "This is a photo of {}."
SCALE, BIAS = 2.1, -1.7
PROCESSING: dict[str, Any] = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": IMAGE, "width": IMAGE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def build_tokenizer() -> Tokenizer:
    """The pieces as a converter writes them: without what SiglipTokenizer does to a text first."""
    listed = json.loads(FILE.read_text())["pieces"]
    made = Tokenizer(models.Unigram([(piece, score) for piece, score in listed], UNKNOWN, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<pad>", END, "<unk>"])
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)]
    )
    return made


def _encoder(made: Tensors, name: str, sizes: dict[str, Any]) -> None:
    c, inner = sizes["hidden_size"], sizes["intermediate_size"]
    for layer in range(sizes["num_hidden_layers"]):
        at = f"{name}.encoder.layers.{layer}"
        made.norm(f"{at}.layer_norm1", c, bias=True)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made.linear(f"{at}.self_attn.{part}", c, c)
        made.norm(f"{at}.layer_norm2", c, bias=True)
        made.linear(f"{at}.mlp.fc1", inner, c)
        made.linear(f"{at}.mlp.fc2", c, inner)


def _tensors(config: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    made = Tensors(Case("siglip", config, lambda _: None, build_tokenizer, seed=13))
    add = made.found
    image, text = config["vision_config"], config["text_config"]
    places = "vision_model.embeddings"
    made.matrix(f"{places}.position_embedding", (IMAGE // PATCH) ** 2, C, gain=4)
    made.linear(f"{places}.patch_embedding", C, 3 * PATCH**2)
    weight = f"{places}.patch_embedding.weight"
    add[weight] = add[weight].reshape(C, 3, PATCH, PATCH)
    _encoder(made, "vision_model", image)
    made.norm("vision_model.post_layernorm", C, bias=True)
    head = "vision_model.head"
    made.linear("in_proj", 3 * C, C)
    for part in ("weight", "bias"):
        add[f"{head}.attention.in_proj_{part}"] = add.pop(f"in_proj.{part}")
    rng = np.random.default_rng(31)
    add[f"{head}.probe"] = rng.standard_normal((1, 1, C)).astype(np.float32)
    made.linear(f"{head}.attention.out_proj", C, C)
    made.norm(f"{head}.layernorm", C, bias=True)
    made.linear(f"{head}.mlp.fc1", INNER, C)
    made.linear(f"{head}.mlp.fc2", C, INNER)
    words = "text_model.embeddings"
    made.matrix(f"{words}.token_embedding", text["vocab_size"], TEXT_C, gain=4)
    made.matrix(f"{words}.position_embedding", POSITIONS, TEXT_C, gain=2)
    _encoder(made, "text_model", text)
    made.norm("text_model.final_layer_norm", TEXT_C, bias=True)
    made.linear("text_model.head", C, TEXT_C)
    add["logit_scale"] = np.array([SCALE], np.float32)
    add["logit_bias"] = np.array([BIAS], np.float32)
    return add


def siglip_config(vocabulary: int) -> dict[str, Any]:
    """A config.json; sizes that are the same in every file are left out."""
    return {
        "model_type": "siglip",
        "architectures": ["SiglipModel"],
        "text_config": {
            "model_type": "siglip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": TEXT_C,
            "projection_size": C,
            "intermediate_size": TEXT_INNER,
            "num_hidden_layers": 2,
            "num_attention_heads": TEXT_HEADS,
            "max_position_embeddings": POSITIONS,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": C,
            "intermediate_size": INNER,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "image_size": IMAGE,
            "patch_size": PATCH,
        },
    }


def build_siglip(folder: Path, **changes: Any) -> Path:
    """Write a folder."""
    tokenizer = build_tokenizer()
    config = siglip_config(tokenizer.get_vocab_size())
    write(folder, {**config, **changes}, PROCESSING, _tensors(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
