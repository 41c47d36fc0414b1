"""BERT (Devlin et al. 2019) as a sentence encoder.

Reads in the order of the computation. B texts of at most T tokens, hidden size C, inner size I.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.dtypes import DType, block_of
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# Hugging Face's names of activations, and ours.
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh"}
_LARGEST = 1 << 24


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes of a model, from its config.json."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    activation: str
    eps: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: str) -> BertConfig:
        """Check and read a Hugging Face config.json of model_type "bert".

        ModelFileError if it is not sound, UnsupportedModelError if it is no such BERT.
        """
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise UnsupportedModelError(file, f"hidden_act {activation!r} is not known")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise UnsupportedModelError(file, "its position embeddings are not absolute")
        eps = config.get("layer_norm_eps", 1e-12)
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
            raise ModelFileError(file, f"layer_norm_eps {eps!r} is not a small number")
        made = cls(
            vocabulary=_size(config, "vocab_size", file),
            hidden=_size(config, "hidden_size", file),
            layers=_size(config, "num_hidden_layers", file, largest=1000),
            heads=_size(config, "num_attention_heads", file),
            inner=_size(config, "intermediate_size", file),
            positions=_size(config, "max_position_embeddings", file),
            activation=_ACTIVATIONS[activation],
            eps=float(eps),
        )
        if made.hidden % made.heads:
            raise ModelFileError(
                file, f"hidden_size {made.hidden} does not divide by {made.heads} heads"
            )
        return made


def _size(config: Mapping[str, Any], key: str, file: str, largest: int = _LARGEST) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ModelFileError(file, f"{key} is {value!r}, expected a whole number 1 to {largest:,}")
    return value


def sentence_encoder(
    config: BertConfig,
    batch: Dim,
    tokens: Dim,
    *,
    pooling: str,
    normalise: bool,
    weights: DType = "f32",
) -> Graph:
    """Record ids (B, T) u32 and lengths (B) u32 -> embedding (B, C) f32.

    `weights` is what matrices are stored as, where their rows come out even: all but the position
    and type tables, which are added whole.
    """
    graph = Graph("bert")
    ids = graph.input("ids", (batch, tokens), "u32")
    lengths = graph.input("lengths", (batch,), "u32")

    x = _embeddings(graph, config, ids, weights)  # (B, T, C)
    for layer in range(config.layers):
        x = _encoder_layer(graph, config, x, lengths, f"encoder.layer.{layer}", weights)

    y = graph.call("pool", x, lengths, kind=pooling)  # (B, C)
    if normalise:
        y = graph.call("l2_normalise", y, eps=1e-12)
    graph.output(y)
    return graph


def _embeddings(graph: Graph, config: BertConfig, ids: Value, weights: DType) -> Value:
    c = config.hidden
    words = _matrix(graph, "embeddings.word_embeddings.weight", (config.vocabulary, c), weights)
    positions = graph.parameter("embeddings.position_embeddings.weight", (config.positions, c))
    # One text at a time is embedded, so every token is of type 0: the table's first row.
    name = "embeddings.token_type_embeddings.weight"
    kind = graph.parameter("token_type_0", (c,), name, rows=1)
    x = graph.call("embedding", ids, words, positions, kind)  # (B, T, C)
    return _layer_norm(graph, config, x, "embeddings.LayerNorm")


def _encoder_layer(
    graph: Graph, config: BertConfig, x: Value, lengths: Value, name: str, weights: DType
) -> Value:
    c = config.hidden
    heads = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    tensors = [f"{head}.weight" for head in heads]
    weight = _matrix(graph, f"{name}.qkv.weight", (3 * c, c), weights, *tensors)
    bias = graph.parameter(f"{name}.qkv.bias", (3 * c,), *(f"{h}.bias" for h in heads))
    qkv = graph.call("linear", x, weight, bias, activation="none")  # (B, T, 3C)
    mixed = graph.call("attention", qkv, lengths, heads=config.heads)  # (B, T, C)
    y = _linear(graph, mixed, c, f"{name}.attention.output.dense", weights)
    x = _layer_norm(graph, config, graph.call("add", y, x), f"{name}.attention.output.LayerNorm")

    y = _linear(graph, x, config.inner, f"{name}.intermediate.dense", weights)  # (B, T, I)
    y = graph.call("activate", y, kind=config.activation)
    y = _linear(graph, y, c, f"{name}.output.dense", weights)  # (B, T, C)
    return _layer_norm(graph, config, graph.call("add", y, x), f"{name}.output.LayerNorm")


def _matrix(graph: Graph, name: str, shape: tuple[int, int], dtype: DType, *tensors: str) -> Value:
    """A matrix stored as `dtype`, or as float32 where its rows are no whole number of blocks."""
    even = shape[1] % block_of(dtype).n_elements == 0
    return graph.parameter(name, shape, *tensors, dtype=dtype if even else "f32")


def _linear(graph: Graph, x: Value, n: int, name: str, weights: DType) -> Value:
    k = x.shape[-1]
    assert isinstance(k, int)  # only B and T are Dims
    weight = _matrix(graph, f"{name}.weight", (n, k), weights)
    bias = graph.parameter(f"{name}.bias", (n,))
    return graph.call("linear", x, weight, bias, activation="none")


def _layer_norm(graph: Graph, config: BertConfig, x: Value, name: str) -> Value:
    weight = graph.parameter(f"{name}.weight", (config.hidden,))
    bias = graph.parameter(f"{name}.bias", (config.hidden,))
    return graph.call("layer_norm", x, weight, bias, eps=config.eps)
