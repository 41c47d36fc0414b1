"""Decoders with rotary positions, RMS norms and gated layers (Llama, Touvron et al. 2023).

In the order of the computation. T tokens, hidden size C, inner size I, H heads over G KV heads of
size D, S slots of the cache, V vocabulary. The tensors of a model decide what is recorded: biases
of q, k and v, norms of each head or after a part, fused projections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from bascule.base.dtypes import rounded_to
from bascule.models.decoder.config import DecoderConfig
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

CacheDType = Literal["f16", "f32"]
# A state (P) u32 with each position's number, for tables of learned positions.
PLACES = "places"
# Norms of a part's result, by GGUF's names.
POST_ATTENTION, POST_FFN = "post_attention_norm", "post_ffw_norm"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: the prefix of its tensors' names, its KV cache, and how far back it attends.

    With `only_cache` nothing remains to be done once its keys and values are in the cache.
    """

    name: str
    cache: Value
    window: int
    only_cache: bool


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decoder that is being recorded: a pass over `length` tokens from `position` on.

    Ids come from the state `tokens` (S) u32, so a token that was sampled on the GPU never leaves
    it. `angles` (A, D) hold cosines and sines. `window` limits how far back a token attends (0: as
    far as the model does). With `fills_cache` the pass ends when all keys and values are in the
    cache.
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
        """Declare a matrix of the file, or several stacked, in its stored format."""
        tensors = [f"{part}.weight" for part in parts or (name,)]
        dtype = self.config.types.get(tensors[0], "f32")
        return self.graph.parameter(f"{name}.weight", shape, *tensors, dtype=dtype)

    def bias(self, name: str, n: int, *parts: str) -> Value | None:
        """Declare a bias (N) of the file, or several stacked; None if the model has none."""
        tensors = [f"{part}.bias" for part in parts or (name,)]
        if not self.has(tensors[0]):
            return None
        return self.graph.parameter(f"{name}.bias", (n,), *tensors)

    def norm(self, x: Value, name: str, size: int = 0) -> Value:
        """Record the RMS norm by a weight of the file, over C or over each `size` numbers."""
        config = self.config
        weight = self.graph.parameter(f"{name}.weight", (size or config.hidden,))
        return self.graph.call("rms_norm", x, weight, eps=config.eps, plus=config.norm_plus)

    def embedded(self, table: Value) -> Value:
        """Record the rows of the token embedding (T, C), scaled by the model's factor.

        As in transformers the factor is rounded to the table's type.
        """
        x = self.graph.call(
            "token_embedding", table, self.tokens, self.position, length=self.length
        )
        factor = rounded_to(table.dtype, self.config.embedding_scale)
        return x if factor == 1 else self.graph.call("scale", x, by=factor)

    def layers(self) -> Iterator[Layer]:
        """Yield the layers, each with its KV cache."""
        config = self.config
        for index in range(config.layers):
            shape = (self.slots, config.cache_width)
            cache = self.graph.state(f"cache.{index}", shape, self.cache)
            own = 0 if index in config.full_layers else config.window
            window = min((w for w in (self.window, own) if w), default=0)
            last = index == config.layers - 1
            yield Layer(f"blk.{index}", cache, window, only_cache=self.fills_cache and last)

    def rotated(self, qkv: Value, layer: Layer) -> Value:
        """Record rotary angles: q (T, HD) from qkv; k and v go into the cache."""
        state = (layer.cache, self.angles, self.position)
        return self.graph.call("rope_append", qkv, *state, **self._heads, pairs=self.config.pairs)

    def attended(self, q: Value, layer: Layer) -> Value:
        """Record the attention of q over the cache (T, HD)."""
        scores = {"scale": self.config.scale, "softcap": self.config.score_cap}
        state, window = (layer.cache, self.position), layer.window
        return self.graph.call(
            "cached_attention", q, *state, **self._heads, window=window, **scores
        )

    def logits(self, x: Value, table: Value) -> Value:
        """Record the output layer (T, V); its weight is the embedding's if it has none."""
        shape = (self.config.vocabulary, self.config.hidden)
        output = self.weight("output", shape) if self.has("output.weight") else table
        logits = self.graph.call("linear", x, output, activation="none")
        cap = self.config.logit_cap
        return self.graph.call("softcap", logits, cap=cap) if cap else logits

    @property
    def _heads(self) -> dict[str, int]:
        config = self.config
        return {"heads": config.heads, "kv_heads": config.kv_heads, "size": config.size}

    def alike(self, names: Iterable[str]) -> bool:
        """Whether these tensors have one type, so that they can be stacked."""
        return len({self.config.types.get(f"{name}.weight", "f32") for name in names}) == 1


def decode(to: Decoding) -> Value | None:
    """Record tokens -> logits (T, V); None with `fills_cache`."""
    config = to.config
    table = to.weight("token_embd", (config.vocabulary, config.hidden))
    x = to.embedded(table)  # (T, C)
    for layer in to.layers():
        x = _layer(to, x, layer)
    return None if to.fills_cache else to.logits(to.norm(x, "output_norm"), table)  # (T, V)


def _layer(to: Decoding, x: Value, layer: Layer) -> Value:
    config, name = to.config, layer.name
    normed = to.norm(x, f"{name}.attn_norm")
    qkv = _qkv(to, normed, name)  # (T, (H + 2G) D)
    q = to.rotated(qkv, layer)
    if layer.only_cache:
        return q
    mixed = to.attended(q, layer)  # (T, HD)
    output = to.weight(f"{name}.attn_output", (config.hidden, config.heads * config.size))
    x = _added(to, mixed, output, x, f"{name}.{POST_ATTENTION}")  # (T, C)

    normed = to.norm(x, f"{name}.ffn_norm")
    y = _gated(to, normed, name)  # (T, I)
    down = to.weight(f"{name}.ffn_down", (config.hidden, config.inner))
    return _added(to, y, down, x, f"{name}.{POST_FFN}")


def _added(to: Decoding, y: Value, weight: Value, x: Value, norm: str) -> Value:
    """Record x + y @ weight.T (T, C), the product normalized first if the model has the norm."""
    if not to.has(f"{norm}.weight"):
        return to.graph.call("linear", y, weight, None, x, activation="none")
    product = to.graph.call("linear", y, weight, activation="none")
    return to.graph.call("add", to.norm(product, norm), x)


def _qkv(to: Decoding, x: Value, name: str) -> Value:
    config, call = to.config, to.graph.call
    widths = (config.heads * config.size, *(config.kv_heads * config.size,) * 2)
    fused = f"{name}.attn_qkv"
    parts = [fused] if to.has(f"{fused}.weight") else [f"{name}.attn_{part}" for part in "qkv"]
    normed = to.has(f"{name}.attn_q_norm.weight")
    if to.alike(parts) and not normed:
        weight = to.weight(fused, (sum(widths), config.hidden), *parts)
        bias = to.bias(fused, sum(widths), *parts)
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
        return call("gated_linear", x, weight, activation=config.activation)
    gate, up = (to.weight(part, (config.inner, config.hidden)) for part in parts)
    opened = call("linear", x, gate, activation=config.activation)
    return call("multiply", opened, call("linear", x, up, activation="none"))
