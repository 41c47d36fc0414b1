"""Tiny models of images and texts with random weights, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.goldens.families import Case, Tensors
from tests.goldens.vision import clip_processing, write

# No size is a multiple of a tile, and the last pixels of an image make no whole patch.
C, INNER, IMAGE, PATCH, HEADS = 36, 52, 24, 7, 3
TEXT_C, TEXT_INNER, TEXT_HEADS, POSITIONS = 20, 44, 5, 19
DIMENSION = 27
PIECES = [
    "the",
    "photo",
    "of",
    "a",
    "cat",
    "dog",
    "bird",
    "two",
    "red",
    "blue",
    "sleeping",
    "it",
    "'s",
    "1",
    "2",
    ".",
    ",",
    "!",
    "é",
]
START, END = "<|startoftext|>", "<|endoftext|>"
TEXTS = (
    "a photo of a cat",
    "A  PHOTO\tof a Dog!",
    "it's two red birds, sleeping.",
    "",
    "zebra Übung 12 ½ — 日本 🙂",
    "the photo " * 12,
    f"a cat {END} a dog",
    f"{START}bird",
)
LABELS = ("cat", "sleeping dog", "two red birds")
TEMPLATE = "a photo of a {}"


def build_tokenizer() -> Tokenizer:
    """CLIP's tokenizer with merges that make the words of `PIECES`."""
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    vocab = {text: at for at, text in enumerate([*letters, *(f"{each}</w>" for each in letters)])}
    merges: list[tuple[str, str]] = []
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for word in PIECES:
        ((text, _),) = to_bytes.pre_tokenize_str(word)
        parts = [*text[:-1], f"{text[-1]}</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = ["".join(pair), *parts[2:]]
            vocab.setdefault(parts[0], len(vocab))
    vocab |= {START: len(vocab), END: len(vocab) + 1}
    suffix: Any = {"end_of_word_suffix": "</w>", "continuing_subword_prefix": ""}
    made = Tokenizer(models.BPE(vocab, merges, unk_token=END, fuse_unk=False, **suffix))
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    made.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    cuts = [
        pre_tokenizers.Split(words, "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    made.pre_tokenizer = pre_tokenizers.Sequence(cuts)  # type: ignore[assignment]
    made.add_special_tokens([START, END])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(  # type: ignore[assignment]
        (END, vocab[END]), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
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


def _tensors(config: dict[str, Any], vocabulary: int) -> dict[str, np.ndarray[Any, Any]]:
    made = Tensors(Case("clip", config, lambda _: None, build_tokenizer, seed=11))
    add = made.found
    image, text = config["vision_config"], config["text_config"]
    rng = np.random.default_rng(23)
    tokens = "vision_model.embeddings"
    places = (image["image_size"] // image["patch_size"]) ** 2 + 1
    c, patch = image["hidden_size"], image["patch_size"]
    add[f"{tokens}.class_embedding"] = rng.standard_normal(c).astype(np.float32)
    made.matrix(f"{tokens}.position_embedding", places, c, gain=4)
    made.matrix(f"{tokens}.patch_embedding", c, 3 * patch**2)
    weight = f"{tokens}.patch_embedding.weight"
    add[weight] = add[weight].reshape(c, 3, patch, patch)
    made.norm("vision_model.pre_layrnorm", c, bias=True)
    _encoder(made, "vision_model", image)
    made.norm("vision_model.post_layernorm", c, bias=True)
    made.matrix("text_model.embeddings.token_embedding", vocabulary, text["hidden_size"], gain=4)
    made.matrix("text_model.embeddings.position_embedding", POSITIONS, text["hidden_size"], gain=2)
    _encoder(made, "text_model", text)
    made.norm("text_model.final_layer_norm", text["hidden_size"], bias=True)
    made.matrix("visual_projection", config["projection_dim"], c)
    made.matrix("text_projection", config["projection_dim"], text["hidden_size"])
    add["logit_scale"] = np.array(2.1, np.float32)
    return add


def clip_config(vocabulary: int, eos: int) -> dict[str, Any]:
    """A config.json; sizes that are the same in every file are left out."""
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": DIMENSION,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": TEXT_C,
            "intermediate_size": TEXT_INNER,
            "num_hidden_layers": 2,
            "num_attention_heads": TEXT_HEADS,
            "max_position_embeddings": POSITIONS,
            "eos_token_id": eos,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": C,
            "intermediate_size": INNER,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "image_size": IMAGE,
            "patch_size": PATCH,
        },
    }


def build_clip(folder: Path, *, old: bool = False, **changes: Any) -> Path:
    """Write a folder; an `old` one has the eos_token_id of files before transformers 4.31.

    There a token with a higher id than the end's pools a text instead of it.
    """
    tokenizer = build_tokenizer()
    if old:
        tokenizer.add_special_tokens(["<|more|>"])
    vocabulary = tokenizer.get_vocab_size()
    end = tokenizer.token_to_id(END)
    config = {**clip_config(vocabulary, 2 if old else end), **changes}
    tensors = _tensors(clip_config(vocabulary, 2), vocabulary)
    write(folder, config, clip_processing(IMAGE), tensors)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
