"""The tensors of a BERT in safetensors, checked against its config.json before anything is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.model.bert import BertConfig
from bascule.weights.safetensors import TensorInfo

# Heads that embeddings do not pass through, and a table that follows from the settings.
_IGNORED = re.compile(r"pooler\..*|cls\..*|embeddings\.position_ids")
# TensorFlow's names, in checkpoints as old as bert-base-uncased.
_OLD_NAMES: Mapping[str, str] = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
}


def canonical_names(tensors: Mapping[str, TensorInfo], place: str) -> dict[str, TensorInfo]:
    """Name tensors as `bert.sentence_encoder` does: no "bert." prefix, no old names.

    ModelFileError if two tensors come out with one name.
    """
    found: dict[str, TensorInfo] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("bert.")
        for old, new in _OLD_NAMES.items():
            if short.endswith(f".{old}"):
                short = short.removesuffix(old) + new
        if short in found:
            raise ModelFileError(place, f"it has the tensor {short[:80]!r} in two spellings")
        found[short] = replace(tensor, name=short)
    return found


def check_tensors(config: BertConfig, tensors: Mapping[str, TensorInfo], place: str) -> None:
    """Compare a file's tensors with the sizes of config.json.

    ModelFileError for one that is missing or has another shape, UnsupportedModelError for one that
    is not read: a head, an adapter, a layer that config.json leaves out.
    """
    known: set[str] = set()
    for name, shape in _shapes(config):
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelFileError(place, f"it lacks the tensor {name!r} of its config.json")
        if tensor.shape != shape:
            told = f"tensor {name!r} is {list(tensor.shape)}, and config.json makes it"
            raise ModelFileError(place, f"{told} {list(shape)}")
        known.add(name)
    types = tensors.get(_TYPES)
    if types is None or types.shape[1:] != (config.hidden,) or not types.shape[0]:
        raise ModelFileError(place, f"it lacks the tensor {_TYPES!r} (rows, {config.hidden})")
    for name in sorted(tensors.keys() - known - {_TYPES}):
        if not _IGNORED.fullmatch(name):
            told = f"it has the tensor {name[:80]!r}, which this version does not run"
            raise UnsupportedModelError(place, told, hint="Take a sentence encoder without it.")


_TYPES = "embeddings.token_type_embeddings.weight"


def _shapes(config: BertConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    c, inner = config.hidden, config.inner
    yield "embeddings.word_embeddings.weight", (config.vocabulary, c)
    yield "embeddings.position_embeddings.weight", (config.positions, c)
    yield from _norm("embeddings", c)
    for layer in range(config.layers):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _linear(f"{name}.attention.{part}", c, c)
        yield from _norm(f"{name}.attention.output", c)
        yield from _linear(f"{name}.intermediate.dense", inner, c)
        yield from _linear(f"{name}.output.dense", c, inner)
        yield from _norm(f"{name}.output", c)


def _linear(name: str, n: int, k: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (n, k)
    yield f"{name}.bias", (n,)


def _norm(name: str, c: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.LayerNorm.weight", (c,)
    yield f"{name}.LayerNorm.bias", (c,)
