"""SigLIP's two encoders, in the order of the computation.

B images or texts, N patches, T tokens, hidden size C of an encoder.
"""

from __future__ import annotations

from bascule.models.image.graph import ImageEncoderGraph, Layers
from bascule.models.image_text.graph import TextRecorder, layer_names, unit_length
from bascule.models.layers import matrix
from bascule.program.program import Value

IMAGE, TEXT = layer_names("vision_model"), layer_names("text_model")
PATCHES = "vision_model.embeddings.patch_embedding"
TABLE = "vision_model.embeddings.position_embedding.weight"
POST_NORM = "vision_model.post_layernorm"
_POOLING = "vision_model.head"
PROBE = f"{_POOLING}.probe"
HEAD_WEIGHT = f"{_POOLING}.attention.in_proj_weight"
HEAD_BIAS = f"{_POOLING}.attention.in_proj_bias"
HEAD_OUT = f"{_POOLING}.attention.out_proj"
HEAD_NORM = f"{_POOLING}.layernorm"
HEAD_UP, HEAD_DOWN = f"{_POOLING}.mlp.fc1", f"{_POOLING}.mlp.fc2"
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
FINAL_NORM = "text_model.final_layer_norm"
HEAD = "text_model.head"


def record_image(to: ImageEncoderGraph, lengths: Value, dimension: int) -> Value:
    """Record pixels -> embeddings of length 1 (B, C); C is the `dimension`."""
    layers = Layers(to.graph, to.config.layers, IMAGE, to.weights)
    x = to.positions(PATCHES, "", TABLE, biased=True)  # (B, N, C)
    x = layers.record(x, layers.attended(lengths))
    x = _pooled(to, layers, layers.norm(x, POST_NORM))
    return unit_length(to.graph, to.graph.reshape(x, (to.batch, dimension)))


def _pooled(to: ImageEncoderGraph, layers: Layers, x: Value) -> Value:
    """Record patches (B, N, C) -> (B, 1, C): a learned probe attends to them all."""
    heads = layers.config.heads
    q = _projected(layers, to.repeated(PROBE), "query", 0)  # (B, 1, C)
    k, v = (_projected(layers, x, part, at) for at, part in ((1, "key"), (2, "value")))
    y = to.graph.call("dot_product_attention", q, k, v, heads=heads, kv_heads=heads)
    x = layers.linear(y, layers.config.hidden, HEAD_OUT)
    y = layers.linear(layers.norm(x, HEAD_NORM), layers.config.inner, HEAD_UP)
    return layers.linear(layers.activated(y), layers.config.hidden, HEAD_DOWN, x)


def _projected(layers: Layers, x: Value, part: str, third: int) -> Value:
    """Record x (..., C) -> (..., C) by that third of the rows of the head's stacked projection."""
    c, graph = layers.config.hidden, layers.graph
    name, first = f"{_POOLING}.{part}", third * c
    stored = layers.weights
    weight = matrix(graph, f"{name}.weight", (c, c), stored, HEAD_WEIGHT, rows=c, first=first)
    bias = graph.parameter(f"{name}.bias", (c,), HEAD_BIAS, rows=c, first=first)
    return graph.call("linear", x, weight, bias, activation="none")


def record_text(to: TextRecorder) -> Value:
    """Record padded ids -> embeddings of length 1 (B, D), from the last positions."""
    layers = Layers(to.graph, to.config.text.layers, TEXT, to.weights)
    x = layers.record(to.embeddings(TOKEN_TABLE, TEXT_POSITIONS), to.attention(layers))
    x = to.graph.call("pool", layers.norm(x, FINAL_NORM), to.lengths, kind="last")  # (B, C)
    return unit_length(to.graph, layers.linear(x, to.config.dimension, HEAD))
