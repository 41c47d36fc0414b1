"""Decoders with rotary positions, RMS norms and gated layers (Llama, Touvron et al. 2023).

Reads in the order of the computation. T tokens, hidden size C, inner size I, H heads over G KV
heads of size D, S slots of the cache, V vocabulary. The tensors that a model has decide what is
recorded: biases of q, k and v, norms of each head, projections that its files hold as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from bascule.models.decoder.config import DecoderConfig
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

CacheDType = Literal["f16", "f32"]
# A state (P) u32 that holds each position's number, for tables of learned positions.
PLACES = "places"


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decoder under recording: a pass over `length` tokens from `position` on.

    Ids come from the state `tokens` (S) u32, so that a token that was sampled on the GPU never
    leaves it. `angles` (A, D) hold cosines and sines. `window` bounds how far back a token attends
    (0: to the start). With `fills_cache` the pass ends when all keys and values are in the cache.
    """

    graph: Graph
    config: DecoderConfig
    length: int | Dim
    slots: Dim
    cache: CacheDType
    window: int
    fills_cache: bool
    tokens: Value
    position: Value
    angles: Value

    def has(self, name: str) -> bool:
        """Whether the model has a tensor."""
        return name in self.config.types

    def weight(self, name: str, shape: tuple[int, int], *parts: str) -> Value:
        """Declare a matrix of the file, or several stacked, in the blocks that it has there."""
        tensors = [f"{part}.weight" for part in parts or (name,)]
        dtype = self.config.types.get(tensors[0], "f32")
        return self.graph.parameter(f"{name}.weight", shape, *tensors, dtype=dtype)

    def bias(self, name: str, n: int, *parts: str) -> Value | None:
        """Declare a bias (N) of the file, or several stacked; None where the model has none."""
        tensors = [f"{part}.bias" for part in parts or (name,)]
        if not self.has(tensors[0]):
            return None
        return self.graph.parameter(f"{name}.bias", (n,), *tensors)

    def norm(self, x: Value, name: str, size: int = 0) -> Value:
        """Record the RMS norm by a weight of the file, over C or over each `size` numbers."""
        weight = self.graph.parameter(f"{name}.weight", (size or self.config.hidden,))
        return self.graph.call("rms_norm", x, weight, eps=self.config.eps)

    def layers(self) -> Iterator[tuple[str, Value, bool]]:
        """Yield each layer's name and KV cache, and whether all that is left is to fill that."""
        for layer in range(self.config.layers):
            shape = (self.slots, self.config.cache_width)
            cache = self.graph.state(f"cache.{layer}", shape, self.cache)
            yield f"blk.{layer}", cache, self.fills_cache and layer == self.config.layers - 1

    def rotated(self, qkv: Value, cache: Value) -> Value:
        """Record rotary angles: q (T, HD) out of qkv; k and v go into the cache."""
        state = (cache, self.angles, self.position)
        return self.graph.call("rope_append", qkv, *state, **self._heads, pairs=self.config.pairs)

    def attended(self, q: Value, cache: Value) -> Value:
        """Record the attention of q over the cache (T, HD)."""
        return self.graph.call(
            "cached_attention", q, cache, self.position, **self._heads, window=self.window
        )

    def logits(self, x: Value, table: Value) -> Value:
        """Record the output layer (T, V); its weight is the embedding's where it has none."""
        shape = (self.config.vocabulary, self.config.hidden)
        output = self.weight("output", shape) if self.has("output.weight") else table
        return self.graph.call("linear", x, output, activation="none")

    @property
    def _heads(self) -> dict[str, int]:
        config = self.config
        return {"heads": config.heads, "kv_heads": config.kv_heads, "size": config.size}

    def alike(self, names: Iterable[str]) -> bool:
        """Whether these tensors have one type, so that they can be stacked."""
        return len({self.config.types.get(f"{name}.weight", "f32") for name in names}) == 1


def decode(to: Decoding) -> Value | None:
    """Record tokens -> logits (T, V); None with `fills_cache`."""
    graph, config = to.graph, to.config
    table = to.weight("token_embd", (config.vocabulary, config.hidden))
    x = graph.call("token_embedding", table, to.tokens, to.position, length=to.length)  # (T, C)
    for name, cache, last in to.layers():
        x = _layer(to, x, cache, name, only_cache=last)
    return None if to.fills_cache else to.logits(to.norm(x, "output_norm"), table)  # (T, V)


def _layer(to: Decoding, x: Value, cache: Value, name: str, *, only_cache: bool) -> Value:
    config, call = to.config, to.graph.call
    normed = to.norm(x, f"{name}.attn_norm")
    qkv = _qkv(to, normed, name)  # (T, (H + 2G) D)
    q = to.rotated(qkv, cache)
    if only_cache:
        return q
    mixed = to.attended(q, cache)  # (T, HD)
    wide = config.heads * config.size
    output = to.weight(f"{name}.attn_output", (config.hidden, wide))
    x = call("linear", mixed, output, None, x, activation="none")  # (T, C)

    normed = to.norm(x, f"{name}.ffn_norm")
    y = _gated(to, normed, name)  # (T, I)
    down = to.weight(f"{name}.ffn_down", (config.hidden, config.inner))
    return call("linear", y, down, None, x, activation="none")


def _qkv(to: Decoding, x: Value, name: str) -> Value:
    config, call = to.config, to.graph.call
    widths = (config.heads * config.size, *(config.kv_heads * config.size,) * 2)
    whole = f"{name}.attn_qkv"
    parts = [whole] if to.has(f"{whole}.weight") else [f"{name}.attn_{part}" for part in "qkv"]
    normed = to.has(f"{name}.attn_q_norm.weight")
    if to.alike(parts) and not normed:
        weight = to.weight(whole, (sum(widths), config.hidden), *parts)
        bias = to.bias(whole, sum(widths), *parts)
        return call("linear", x, weight, bias, activation="none")
    joined: list[Value] = []
    for part, width in zip(parts, widths, strict=True):
        weight = to.weight(part, (width, config.hidden))
        y = call("linear", x, weight, to.bias(part, width), activation="none")
        if normed and part != parts[-1]:
            y = to.norm(y, f"{part}_norm", config.size)
        joined.append(y)
    return call("concat", *joined)


def _gated(to: Decoding, x: Value, name: str) -> Value:
    config, call = to.config, to.graph.call
    own = to.has(f"{name}.ffn_gate.weight")
    parts = [f"{name}.ffn_{part}" for part in (("gate", "up") if own else ("up",))]
    if to.alike(parts):
        weight = to.weight(f"{name}.ffn_gate_up", (2 * config.inner, config.hidden), *parts)
        return call("gated_linear", x, weight, activation="silu")
    gate, up = (to.weight(part, (config.inner, config.hidden)) for part in parts)
    opened = call("linear", x, gate, activation="silu")
    return call("multiply", opened, call("linear", x, up, activation="none"))
