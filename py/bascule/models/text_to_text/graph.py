"""T5's two passes: token ids to the keys and values of each decoder layer, tokens to logits.

In the order of the computation. T tokens of the source, hidden size C, inner size I, H heads of
size D, S slots of the decoder's own cache, X slots of its cross-attention, V vocabulary. Layers
normalize before each part by RMS norms; scores are not scaled, and those within a text get a bias
by distance, from a table that the first layer shares with all. Both passes share the states
`cross.<layer>` (X, 2HD) by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from bascule.models.layers import matrix
from bascule.models.text_to_text.config import T5Config
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# States (1) u32: the start of the cross-attention, which is 0, and the position of the last source
# token.
CROSS_FIRST, CROSS_LAST = "cross_first", "cross_last"


@dataclass(frozen=True, slots=True)
class Transforming:
    """A T5 pass that is being recorded, with `sources` slots for the source."""

    graph: Graph
    config: T5Config
    sources: Dim

    def linear(self, x: Value, n: int, name: str, residual: Value | None = None) -> Value:
        """Record x (..., K) -> (..., N), without a bias."""
        k = x.shape[-1]
        assert isinstance(k, int)  # only T, S and X are Dims
        weight = matrix(self.graph, f"{name}.weight", (n, k), self.config.weights)
        return self.graph.call("linear", x, weight, None, residual, activation="none")

    def stacked(self, name: str, rows: int, columns: int, *parts: str) -> Value:
        """Declare matrices of `rows` each as one."""
        tensors = [f"{part}.weight" for part in parts]
        shape = (len(parts) * rows, columns)
        return matrix(self.graph, f"{name}.weight", shape, self.config.weights, *tensors)

    def norm(self, x: Value, name: str) -> Value:
        """Record the RMS norm over C."""
        weight = self.graph.parameter(f"{name}.weight", (self.config.hidden,))
        return self.graph.call("rms_norm", x, weight, eps=self.config.eps)

    def bias(self, half: str, length: int | Dim, lengths: Value | None = None) -> Value:
        """Record what is added to scores: (H, T, T), or (H, 1, S) for the last of `lengths`."""
        config, name = self.config, f"{half}.block.0.layer.0.SelfAttention"
        shape = (config.buckets, config.heads)
        table = self.graph.parameter(f"{name}.relative_attention_bias.weight", shape)
        call, max_distance = self.graph.call, config.max_distance
        causal = lengths is not None
        return call(
            "relative_bias", table, lengths, length=length, max_distance=max_distance, causal=causal
        )

    def table(self) -> Value:
        """Declare the token embedding (V, C)."""
        shape = (self.config.vocabulary, self.config.hidden)
        return matrix(self.graph, "shared.weight", shape, self.config.weights)

    def fed_forward(self, x: Value, name: str) -> Value:
        """Record the feed-forward part of a layer, added to x."""
        config, call, dense = self.config, self.graph.call, f"{name}.DenseReluDense"
        y = self.norm(x, f"{name}.layer_norm")
        if config.gated:
            parts = f"{dense}.wi_0", f"{dense}.wi_1"
            weight = self.stacked(f"{dense}.wi", config.inner, config.hidden, *parts)
            y = call("gated_linear", y, weight, activation=config.activation)
        else:
            y = call(
                "activate", self.linear(y, config.inner, f"{dense}.wi"), kind=config.activation
            )
        return self.linear(y, config.hidden, f"{dense}.wo", x)

    def encoded(self, ids: Value, lengths: Value, bias: Value) -> Value:
        """Record the encoder's layers: ids (B, T) of `lengths` (B) -> its states (B, T, C)."""
        graph, config = self.graph, self.config
        x = graph.call("embedding", ids, self.table())
        heads = {"heads": config.heads, "kv_heads": config.heads, "scale": 1.0}
        for layer in range(config.encoder_layers):
            name = f"encoder.block.{layer}.layer"
            y = self.norm(x, f"{name}.0.layer_norm")
            qkv = [self.linear(y, config.width, f"{name}.0.SelfAttention.{part}") for part in "qkv"]
            mixed = graph.call("dot_product_attention", *qkv, lengths, bias, **heads)
            x = self.linear(mixed, config.hidden, f"{name}.0.SelfAttention.o", x)
            x = self.fed_forward(x, f"{name}.1")
        return self.norm(x, "encoder.final_layer_norm")

    def cross_kv(self, x: Value, layer: int) -> Value:
        """Record a decoder layer's keys and values of encoder states (B, T, 2HD)."""
        config, name = self.config, f"decoder.block.{layer}.layer.1.EncDecAttention"
        weight = self.stacked(f"{name}.kv", config.width, config.hidden, f"{name}.k", f"{name}.v")
        return self.graph.call("linear", x, weight, activation="none")

    def logits(self, x: Value, table: Value) -> Value:
        """Record x (N, C) after the last layer -> logits (N, V)."""
        config = self.config
        x = self.norm(x, "decoder.final_layer_norm")
        if config.scales:
            x = self.graph.call("scale", x, by=config.hidden**-0.5)
        if config.untied:
            shape = (config.vocabulary, config.hidden)
            table = matrix(self.graph, "lm_head.weight", shape, config.weights)
        return self.graph.call("linear", x, table, activation="none")

    def cross_cache(self, layer: int) -> Value:
        """Declare a decoder layer's keys and values of the source (X, 2HD)."""
        return self.graph.state(f"cross.{layer}", (self.sources, 2 * self.config.width))


def encode(to: Transforming, length: Dim) -> Value:
    """Record the inputs `ids` (1, T) and `lengths` (1) u32 -> encoder states (1, T, C).

    Fills the states `cross.<layer>`.
    """
    graph, config = to.graph, to.config
    ids = graph.input("ids", (1, length), "u32")
    lengths = graph.input("lengths", (1,), "u32")
    x = to.encoded(ids, lengths, to.bias("encoder", length))
    first = graph.state(CROSS_FIRST, (1,), "u32")
    for layer in range(config.decoder_layers):
        kv = graph.reshape(to.cross_kv(x, layer), (length, 2 * config.width))
        graph.call("kv_append", kv, to.cross_cache(layer), first)
    return x


def decode(to: Transforming, slots: Dim, tokens: Value, position: Value) -> Value:
    """Record the state `tokens` (S) u32 at `position` (1) u32 -> logits (1, V), for one token."""
    graph, config, call = to.graph, to.config, to.graph.call
    last = graph.state(CROSS_LAST, (1,), "u32")
    table = to.table()
    x = call("token_embedding", table, tokens, position, length=1)  # (1, C)
    bias: Value | None = None
    for layer in range(config.decoder_layers):
        name = f"decoder.block.{layer}.layer"
        y = to.norm(x, f"{name}.0.layer_norm")
        q, k, v = (to.linear(y, config.width, f"{name}.0.SelfAttention.{p}") for p in "qkv")
        keys, values = (graph.state(f"{p}.{layer}", (slots, config.width)) for p in "kv")
        call("kv_append", v, values, position)
        end = call("kv_append", k, keys, position)  # the tokens so far, this one among them
        bias = bias or to.bias("decoder", slots, end)
        mixed = _attended(to, q, keys, values, end, bias)
        x = to.linear(mixed, config.hidden, f"{name}.0.SelfAttention.o", x)

        y = to.norm(x, f"{name}.1.layer_norm")
        q = to.linear(y, config.width, f"{name}.1.EncDecAttention.q")
        heads = {"heads": config.heads, "kv_heads": config.heads, "size": config.size}
        cross = to.cross_cache(layer)
        mixed = call("cached_attention", q, cross, last, **heads, window=0, scale=1.0)
        x = to.linear(mixed, config.hidden, f"{name}.1.EncDecAttention.o", x)
        x = to.fed_forward(x, f"{name}.2")
    return to.logits(x, table)


def _attended(
    to: Transforming, q: Value, keys: Value, values: Value, end: Value, bias: Value
) -> Value:
    """Record the attention of the last token's q (1, HD) over the caches (S, HD)."""
    config, graph = to.config, to.graph
    slots, width = keys.shape
    views = (graph.reshape(state, (1, slots, width)) for state in (keys, values))
    q = graph.reshape(q, (1, 1, width))
    heads = {"heads": config.heads, "kv_heads": config.heads, "scale": 1.0}
    mixed = graph.call("dot_product_attention", q, *views, end, bias, **heads)
    return graph.reshape(mixed, (1, width))
