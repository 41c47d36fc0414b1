"""Llama (Touvron et al. 2023) as a text generator over a KV cache.

Reads in the order of the computation. T tokens, hidden size C, inner size I, H heads over G KV
heads of size D, S slots of the cache, V vocabulary. Every program reads its ids from the state
`tokens` from `position` on, so that a token which was sampled on the GPU never leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from bascule.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# Which end a pass has: none (prefill), the next token, or the logits of all its tokens.
Head = Literal["none", "argmax", "sample", "penalised", "logits"]
CacheDType = Literal["f16", "f32"]

_LARGEST = 1 << 24
_MOST_LAYERS = 1000
_MOST_CONTEXT = 1 << 20
# Tensors of a file that no program reads as a weight.
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes of a model, from its GGUF metadata; `types` are the types of its tensors."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    size: int
    inner: int
    context: int
    theta: float
    eps: float
    types: Mapping[str, DType]

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
    ) -> LlamaConfig:
        """Check and read what a GGUF header says; `rows` are those of its token embedding.

        ModelFileError if it is not sound, UnsupportedModelError if it is no such Llama.
        """
        kind = metadata.get("general.architecture")
        if kind != "llama":
            raise UnsupportedModelError(
                file, f"its architecture is {str(kind)[:40]!r}, and this version runs 'llama'"
            )
        read = _Reader(metadata, file)
        hidden = read.size("llama.embedding_length")
        heads = read.size("llama.attention.head_count")
        kv_heads = read.size("llama.attention.head_count_kv", heads)
        size = read.size("llama.attention.key_length", hidden // heads)
        if heads % kv_heads or size % 4 or (hidden // heads != size and hidden % heads):
            told = f"{heads} heads over {kv_heads} of size {size}"
            raise ModelFileError(file, f"{told} do not fit together")
        for key, expected in (
            ("llama.attention.value_length", size),
            ("llama.rope.dimension_count", size),
        ):
            if read.size(key, expected) != expected:
                raise UnsupportedModelError(file, f"{key} is not the head size {size}")
        scaling = metadata.get("llama.rope.scaling.type", "none")
        if scaling != "none":
            raise UnsupportedModelError(file, f"its rope scaling is {str(scaling)[:40]!r}")
        made = cls(
            vocabulary=rows,
            hidden=hidden,
            layers=read.size("llama.block_count", largest=_MOST_LAYERS),
            heads=heads,
            kv_heads=kv_heads,
            size=size,
            inner=read.size("llama.feed_forward_length"),
            context=read.size("llama.context_length", largest=_MOST_CONTEXT),
            theta=read.number("llama.rope.freq_base", 10_000.0, 1.0, 1e12),
            eps=read.number("llama.attention.layer_norm_rms_epsilon", 1e-5, 0.0, 1.0),
            types=types,
        )
        made._check_tensors(file)
        return made

    def _check_tensors(self, file: str) -> None:
        """Nothing of the model may be left out: a bias that is not read gives wrong numbers."""
        known = {"token_embd.weight", "output_norm.weight", "output.weight", ROPE_FACTORS}
        parts = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")
        parts += ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
        known |= {f"blk.{i}.{part}.weight" for i in range(self.layers) for part in parts}
        unread = sorted(self.types.keys() - known)
        if unread:
            raise UnsupportedModelError(file, f"it has tensor {unread[0]!r}, which is not known")

    @property
    def cache_width(self) -> int:
        """Numbers of a layer's cache for a token: G keys and G values."""
        return 2 * self.kv_heads * self.size


class _Reader:
    """Checked numbers of a file's metadata."""

    def __init__(self, metadata: Mapping[str, Any], file: str) -> None:
        self._metadata = metadata
        self._file = file

    def size(self, key: str, default: int | None = None, largest: int = _LARGEST) -> int:
        value = self._metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ModelFileError(
                self._file,
                f"{key} is {str(value)[:40]}, expected a whole number 1 to {largest:,}",
            )
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self._metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFileError(self._file, f"{key} is {str(value)[:40]}, expected a number")
        if not (isfinite(value) and least <= value <= most):
            raise ModelFileError(self._file, f"{key} is {value}, expected {least} to {most}")
        return float(value)


def decoder(
    config: LlamaConfig,
    length: int | Dim,
    slots: Dim,
    *,
    head: Head,
    cache: CacheDType,
    window: int,
) -> Graph:
    """Record a pass over `length` tokens from `position` on.

    With head "none" the cache is filled and nothing is computed that does not serve it; "argmax",
    "sample" and "penalised" (length 1) write the next token and move `position` on; "logits" gives
    (T, V) f32. `window` bounds how far back a token attends (0: to the start).
    """
    graph = Graph(f"llama {head}")
    tokens = graph.state("tokens", (slots,), "u32")
    position = graph.state("position", (1,), "u32")
    angles = graph.state("angles", (Dim("A", _MOST_CONTEXT), config.size))
    pass_ = _Pass(graph, config, position, angles, window)

    table = pass_.weight("token_embd", (config.vocabulary, config.hidden))
    x = graph.call("token_embedding", table, tokens, position, length=length)  # (T, C)
    for layer in range(config.layers):
        kept = graph.state(f"cache.{layer}", (slots, config.cache_width), cache)
        last = head == "none" and layer == config.layers - 1
        x = _layer(pass_, x, kept, f"blk.{layer}", only_cache=last)
    if head == "none":
        return graph

    x = pass_.norm(x, "output_norm")
    tied = "output.weight" not in config.types
    output = table if tied else pass_.weight("output", (config.vocabulary, config.hidden))
    logits = graph.call("linear", x, output, activation="none")  # (T, V)
    if head == "logits":
        graph.output(logits)
        return graph
    settings = graph.state("settings", (8,), "u32")
    if head == "penalised":
        logits = graph.call("penalise", logits, tokens, position, settings)
    if head == "argmax":
        graph.call("argmax_token", logits, tokens, position)
    else:
        graph.call("sample_token", logits, tokens, position, settings)
    return graph


@dataclass(frozen=True, slots=True)
class _Pass:
    """What every layer of one recording shares."""

    graph: Graph
    config: LlamaConfig
    position: Value
    angles: Value
    window: int

    def weight(self, name: str, shape: tuple[int, int], *parts: str) -> Value:
        """A matrix of the file, or several stacked, in the blocks that it has there."""
        tensors = [f"{part}.weight" for part in parts or (name,)]
        dtype = self.config.types.get(tensors[0], "f32")
        return self.graph.parameter(f"{name}.weight", shape, *tensors, dtype=dtype)

    def norm(self, x: Value, name: str) -> Value:
        """RMS norm by a weight of the file."""
        weight = self.graph.parameter(f"{name}.weight", (self.config.hidden,))
        return self.graph.call("rms_norm", x, weight, eps=self.config.eps)

    def alike(self, names: Iterable[str]) -> bool:
        """Whether these tensors have one type, so that they can be stacked."""
        return len({self.config.types.get(f"{name}.weight", "f32") for name in names}) == 1


def _layer(pass_: _Pass, x: Value, cache: Value, name: str, *, only_cache: bool) -> Value:
    config, call = pass_.config, pass_.graph.call
    heads = {"heads": config.heads, "kv_heads": config.kv_heads, "size": config.size}
    position = pass_.position
    normed = pass_.norm(x, f"{name}.attn_norm")
    qkv = _qkv(pass_, normed, name)  # (T, (H + 2G) D)
    # GGUF files of this family keep the rows of q and k so that pairs stand side by side.
    q = call("rope_append", qkv, cache, pass_.angles, position, **heads, pairs="adjacent")
    if only_cache:
        return q
    mixed = call("cached_attention", q, cache, position, **heads, window=pass_.window)  # (T, HD)
    wide = config.heads * config.size
    output = pass_.weight(f"{name}.attn_output", (config.hidden, wide))
    x = call("linear", mixed, output, None, x, activation="none")  # (T, C)

    normed = pass_.norm(x, f"{name}.ffn_norm")
    y = _gated(pass_, normed, name)  # (T, I)
    down = pass_.weight(f"{name}.ffn_down", (config.hidden, config.inner))
    return call("linear", y, down, None, x, activation="none")


def _qkv(pass_: _Pass, x: Value, name: str) -> Value:
    config, call = pass_.config, pass_.graph.call
    widths = (config.heads * config.size, *(config.kv_heads * config.size,) * 2)
    parts = [f"{name}.attn_{part}" for part in "qkv"]
    if pass_.alike(parts):
        weight = pass_.weight(f"{name}.attn_qkv", (sum(widths), config.hidden), *parts)
        return call("linear", x, weight, activation="none")
    made = [
        call("linear", x, pass_.weight(part, (width, config.hidden)), activation="none")
        for part, width in zip(parts, widths, strict=True)
    ]
    return call("concat", *made)


def _gated(pass_: _Pass, x: Value, name: str) -> Value:
    config, call = pass_.config, pass_.graph.call
    parts = [f"{name}.ffn_{part}" for part in ("gate", "up")]
    if pass_.alike(parts):
        weight = pass_.weight(f"{name}.ffn_gate_up", (2 * config.inner, config.hidden), *parts)
        return call("gated_linear", x, weight, activation="silu")
    gate, up = (pass_.weight(part, (config.inner, config.hidden)) for part in parts)
    opened = call("linear", x, gate, activation="silu")
    return call("multiply", opened, call("linear", x, up, activation="none"))
