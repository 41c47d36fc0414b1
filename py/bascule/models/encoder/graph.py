"""Encoders that normalize after each part of a layer (BERT, Devlin et al. 2019).

In the order of the computation. B texts of at most T tokens, hidden size C, inner size I.
"""

from __future__ import annotations

from dataclasses import dataclass

from bascule.base.dtypes import DType
from bascule.models.encoder.config import EncoderConfig
from bascule.models.layers import matrix
from bascule.program.graph import Graph
from bascule.program.program import Value

# The distance from which on all tokens share a bias.
_MAX_DISTANCE = 128


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder that is being recorded: ids (B, T) u32 of texts with lengths (B) u32.

    `types` (B, T) u32 are rows of the table of token types; None if every token is of type 0.
    `weights` is the dtype of stored matrices, if their rows are whole blocks: all but the position
    and type tables, which are added whole.
    """

    graph: Graph
    config: EncoderConfig
    ids: Value
    lengths: Value
    weights: DType = "f32"
    types: Value | None = None

    def linear(self, x: Value, n: int, name: str, weights: DType | None = None) -> Value:
        """Record x (..., K) -> (..., N), its matrix stored as `weights` or like all others."""
        k = x.shape[-1]
        assert isinstance(k, int)  # only B and T are Dims
        weight = matrix(self.graph, f"{name}.weight", (n, k), weights or self.weights)
        bias = self.graph.parameter(f"{name}.bias", (n,))
        return self.graph.call("linear", x, weight, bias, activation="none")

    def layer_norm(self, x: Value, name: str) -> Value:
        """Record the layer norm over C."""
        weight = self.graph.parameter(f"{name}.weight", (self.config.hidden,))
        bias = self.graph.parameter(f"{name}.bias", (self.config.hidden,))
        return self.graph.call("layer_norm", x, weight, bias, eps=self.config.eps)


def encode(to: Encoding) -> Value:
    """Record ids and lengths -> features of each token (B, T, C)."""
    x = _embeddings(to)  # (B, T, C)
    bias = _relative_bias(to) if to.config.relative_buckets else None
    for layer in range(to.config.layers):
        x = _layer(to, x, f"encoder.layer.{layer}", bias)
    return x


def _relative_bias(to: Encoding) -> Value:
    """Record what every layer adds to its scores (H, T, T)."""
    shape = (to.config.relative_buckets, to.config.heads)
    table = to.graph.parameter("encoder.relative_attention_bias.weight", shape)
    tokens = to.ids.shape[1]
    return to.graph.call("relative_bias", table, length=tokens, max_distance=_MAX_DISTANCE)


def _embeddings(to: Encoding) -> Value:
    graph, config = to.graph, to.config
    c, first = config.hidden, config.first_position
    words = matrix(graph, "embeddings.word_embeddings.weight", (config.vocabulary, c), to.weights)
    name = "embeddings.position_embeddings.weight"
    rows = config.positions if first else 0
    positions = graph.parameter(name, (config.positions, c), rows=rows, first=first)
    kind = None
    name = "embeddings.token_type_embeddings.weight"
    if config.token_types and to.types is None:
        kind = graph.parameter("token_type_0", (c,), name, rows=1)
    x = graph.call("embedding", to.ids, words, positions, kind)  # (B, T, C)
    if to.types is not None:
        table = graph.parameter(name, (config.pair_types, c))
        x = graph.call("add", x, graph.call("embedding", to.types, table))
    return to.layer_norm(x, "embeddings.LayerNorm")


def _attended(to: Encoding, x: Value, name: str, bias: Value | None) -> Value:
    graph, config, c = to.graph, to.config, to.config.hidden
    heads = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    if bias is not None:
        qkv = [to.linear(x, c, head) for head in heads]
        shared = {"heads": config.heads, "kv_heads": config.heads}
        return graph.call("dot_product_attention", *qkv, to.lengths, bias, **shared)
    tensors = [f"{head}.weight" for head in heads]
    weight = matrix(graph, f"{name}.qkv.weight", (3 * c, c), to.weights, *tensors)
    added = graph.parameter(f"{name}.qkv.bias", (3 * c,), *(f"{h}.bias" for h in heads))
    qkv = graph.call("linear", x, weight, added, activation="none")  # (B, T, 3C)
    return graph.call("attention", qkv, to.lengths, heads=config.heads)


def _layer(to: Encoding, x: Value, name: str, bias: Value | None) -> Value:
    graph, config, c = to.graph, to.config, to.config.hidden
    mixed = _attended(to, x, name, bias)  # (B, T, C)
    y = to.linear(mixed, c, f"{name}.attention.output.dense")
    x = to.layer_norm(graph.call("add", y, x), f"{name}.attention.output.LayerNorm")

    y = to.linear(x, config.inner, f"{name}.intermediate.dense")  # (B, T, I)
    y = graph.call("activate", y, kind=config.activation)
    y = to.linear(y, c, f"{name}.output.dense")  # (B, T, C)
    return to.layer_norm(graph.call("add", y, x), f"{name}.output.LayerNorm")
