"""The config of a rotary decoder from an untrusted GGUF header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.base.dtypes import DType
from bascule.errors import UnsupportedModelError
from bascule.models.decoder.config import MAX_CONTEXT, DecoderConfig, Pairs, check_heads
from bascule.models.settings import MAX_LAYERS, Settings


def read_decoder_metadata(
    metadata: Mapping[str, Any],
    types: Mapping[str, DType],
    rows: int,
    file: str,
    *,
    architecture: str,
    pairs: Pairs = "halves",
    eps: str = "attention.layer_norm_rms_epsilon",
) -> DecoderConfig:
    """Check and read the settings of an architecture.

    `types` are those of the tensors, `rows` those of the token embedding; `eps` is a key.
    ModelFileError if the settings are unsound, UnsupportedModelError for another kind of decoder.
    """
    read = _Prefixed(metadata, file, architecture)
    hidden = read.size("embedding_length")
    heads = read.size("attention.head_count")
    kv_heads = read.size("attention.head_count_kv", heads)
    size = read.size("attention.key_length", hidden // heads)
    even = hidden // heads == size or hidden % heads == 0
    check_heads(heads, kv_heads, size, file, even=even)
    for key in ("attention.value_length", "rope.dimension_count"):
        if read.size(key, size) != size:
            name = f"{architecture}.{key}"
            raise UnsupportedModelError(file, f"{name} is not the head size {size}")
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise UnsupportedModelError(file, f"its rope scaling is {str(scaling)[:40]!r}")
    return DecoderConfig(
        vocabulary=rows,
        hidden=hidden,
        layers=read.size("block_count", largest=MAX_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        size=size,
        inner=read.size("feed_forward_length"),
        context=read.size("context_length", largest=MAX_CONTEXT),
        theta=read.number("rope.freq_base", 10_000.0, 1.0, 1e12),
        eps=read.number(eps, 1e-5, 0.0, 1.0),
        types=types,
        pairs=pairs,
    )


class _Prefixed(Settings):
    """Settings whose names start with an architecture's."""

    def __init__(self, metadata: Mapping[str, Any], file: str, architecture: str) -> None:
        super().__init__(metadata, file)
        self._prefix = architecture

    def integer(self, key: str, default: int | None, minimum: int, maximum: int = 1 << 24) -> int:
        return super().integer(f"{self._prefix}.{key}", default, minimum, maximum)

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        return super().number(f"{self._prefix}.{key}", default, minimum, maximum)
