"""The tensors of an encoder's folder, compared with its config before any program exists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from bascule.errors import ModelFileError
from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import encode
from bascule.models.family import EncoderFamily, Family
from bascule.models.tensors import ANY, Tensors, compare_tensors
from bascule.weights.safetensors import TensorInfo

# TensorFlow's names, in checkpoints as old as the first BERT.
_OLD_NAMES: Mapping[str, str] = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
}


def plain_names(
    family: Family, tensors: Mapping[str, TensorInfo], place: str
) -> dict[str, TensorInfo]:
    """Return tensors without the family's prefixes and in the newer spelling.

    ModelFileError if two tensors get the same name.
    """
    results: dict[str, TensorInfo] = {}
    for name, tensor in tensors.items():
        short = name
        for prefix in family.prefixes:
            short = short.removeprefix(prefix)
        for old, new in _OLD_NAMES.items():
            if short.endswith(f".{old}"):
                short = short.removesuffix(old) + new
        if short in results:
            raise ModelFileError(place, f"it has the tensor {short[:80]!r} in two spellings")
        results[short] = replace(tensor, name=short)
    return results


def check_tensors(
    family: EncoderFamily,
    config: EncoderConfig,
    tensors: Mapping[str, TensorInfo],
    place: str,
    n_labels: int = 0,
) -> None:
    """Compare a folder's tensors with the sizes of its config.json; a classifier has `n_labels`.

    ModelFileError for one that is missing or has another shape, UnsupportedModelError for one that
    is not read: a head, an adapter, a layer that config.json leaves out.
    """
    head = family.head.tensors(config, n_labels) if family.head and n_labels else ()
    hint = "Use a sentence encoder without it."
    expected = family_names(family, (*family.tensors(config), *head))
    compare_tensors(expected, tensors, family.ignored, place, hint=hint)


def family_names(family: Family, tensors: Tensors) -> Tensors:
    """Yield tensors, with their shapes, under the names of the family's files."""
    for name, shape in tensors:
        yield family.tensor_name(name), shape


def encoder_tensors(config: EncoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that `encoder.graph.encode` reads, with their shapes."""
    c, inner = config.hidden, config.inner
    yield "embeddings.word_embeddings.weight", (config.vocabulary, c)
    rows = config.first_position + config.positions
    yield "embeddings.position_embeddings.weight", (rows, c)
    yield from _norm("embeddings", c)
    for layer in range(config.layers):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _linear(f"{name}.attention.{part}", c, c)
        yield from _norm(f"{name}.attention.output", c)
        yield from _linear(f"{name}.intermediate.dense", inner, c)
        yield from _linear(f"{name}.output.dense", c, inner)
        yield from _norm(f"{name}.output", c)
    if config.relative_buckets:
        yield "encoder.relative_attention_bias.weight", (config.relative_buckets, config.heads)
    if config.token_types:
        yield "embeddings.token_type_embeddings.weight", (config.pair_types or ANY, c)


def _linear(name: str, n: int, k: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (n, k)
    yield f"{name}.bias", (n,)


def _norm(name: str, c: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.LayerNorm.weight", (c,)
    yield f"{name}.LayerNorm.bias", (c,)


# A row of a family with BERT's layers; differences are passed after the name.
bert_like = partial(
    EncoderFamily, tensors=encoder_tensors, tensor_name=str, phases={"encode": encode}
)
