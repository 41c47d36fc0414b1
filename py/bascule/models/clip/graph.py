"""CLIP's two encoders, in the order of the computation.

B images or texts, T positions, hidden size C of an encoder, embeddings of D numbers.
"""

from __future__ import annotations

from bascule.models.image.graph import ImageEncoderGraph, Layers
from bascule.models.image_text.graph import TextRecorder, layer_names, unit_length
from bascule.program.program import Value

IMAGE, TEXT = layer_names("vision_model"), layer_names("text_model")
PATCHES = "vision_model.embeddings.patch_embedding"
TOKEN = "vision_model.embeddings.class_embedding"
TABLE = "vision_model.embeddings.position_embedding.weight"
PRE_NORM = "vision_model.pre_layrnorm"  # as the files spell it
POST_NORM = "vision_model.post_layernorm"
IMAGE_PROJECTION = "visual_projection"
TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
FINAL_NORM = "text_model.final_layer_norm"
TEXT_PROJECTION = "text_projection"


def record_image(to: ImageEncoderGraph, lengths: Value, dimension: int) -> Value:
    """Record pixels -> embeddings of length 1 (B, D)."""
    layers = Layers(to.graph, to.config.layers, IMAGE, to.weights)
    x = to.positions(PATCHES, TOKEN, TABLE, biased=False)
    x = layers.record(layers.norm(x, PRE_NORM), layers.attended(lengths))
    x = to.graph.call("pool", x, lengths, kind="cls")  # (B, C)
    x = layers.linear(layers.norm(x, POST_NORM), dimension, IMAGE_PROJECTION, biased=False)
    return unit_length(to.graph, x)


def record_text(to: TextRecorder) -> Value:
    """Record ids and lengths -> embeddings of length 1 (B, D), from the last tokens."""
    layers = Layers(to.graph, to.config.text.layers, TEXT, to.weights)
    x = layers.record(to.embeddings(TOKEN_TABLE, TEXT_POSITIONS), to.attention(layers))
    x = to.graph.call("pool", x, to.lengths, kind="last")  # (B, C)
    x = layers.linear(
        layers.norm(x, FINAL_NORM), to.config.dimension, TEXT_PROJECTION, biased=False
    )
    return unit_length(to.graph, x)
