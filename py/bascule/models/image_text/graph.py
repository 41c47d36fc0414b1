"""What text encoders share.

B texts of at most T tokens, hidden size C, embeddings of D elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bascule.base.dtypes import DType
from bascule.models.image.graph import LayerNames, Layers
from bascule.models.image_text.config import ImageTextConfig
from bascule.models.layers import matrix
from bascule.program.graph import Graph
from bascule.program.program import Value

# As in torch.nn.functional.normalize.
_EPS = 1e-12


def layer_names(encoder: str) -> LayerNames:
    """Return the tensor names of an encoder's layers, as in CLIP's and SigLIP's files."""
    return LayerNames(
        layer=f"{encoder}.encoder.layers.{{}}",
        before="layer_norm1",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        mixed="self_attn.out_proj",
        after="layer_norm2",
        up="mlp.fc1",
        down="mlp.fc2",
    )


@dataclass(frozen=True, slots=True)
class TextRecorder:
    """A text encoder that is being recorded: ids (B, T) u32, lengths (B) u32."""

    graph: Graph
    config: ImageTextConfig
    ids: Value
    lengths: Value
    weights: DType = "f32"

    def embeddings(self, token_table: str, position_table: str) -> Value:
        """Record ids -> token embeddings plus position embeddings (B, T, C)."""
        text = self.config.text
        c = text.layers.hidden
        tokens = matrix(self.graph, token_table, (text.vocabulary, c), self.weights)
        positions = self.graph.parameter(position_table, (text.positions, c))
        return self.graph.call("embedding", self.ids, tokens, positions)

    def attention(self, layers: Layers) -> Callable[[Value, LayerNames], Value]:
        """Return a function that records a layer's attention: causal, or full if padded."""
        if self.config.text.pad is not None:
            return layers.attended(self.lengths)
        c, heads = layers.config.hidden, layers.config.heads

        def causal(x: Value, names: LayerNames) -> Value:
            qkv = [layers.linear(x, c, part) for part in (names.query, names.key, names.value)]
            shared = {"heads": heads, "kv_heads": heads, "causal": True}
            return self.graph.call("dot_product_attention", *qkv, self.lengths, **shared)

        return causal


def unit_length(graph: Graph, x: Value) -> Value:
    """Record embeddings (B, D) -> embeddings of length 1."""
    return graph.call("l2_normalise", x, eps=_EPS)
