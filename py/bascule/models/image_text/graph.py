"""A text encoder under recording.

B texts of at most T tokens, hidden size C, embeddings of D numbers.
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

# As torch.nn.functional.normalize.
_EPS = 1e-12


def layer_names(encoder: str) -> LayerNames:
    """Return the names of an encoder's layers, as CLIP's and SigLIP's folders have them."""
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
class Reading:
    """A text encoder under recording: ids (B, T) u32 of texts with lengths (B) u32."""

    graph: Graph
    config: ImageTextConfig
    ids: Value
    lengths: Value
    weights: DType = "f32"

    def positions(self, words: str, places: str) -> Value:
        """Record ids -> embeddings of tokens and of their positions (B, T, C)."""
        text = self.config.text
        c = text.layers.hidden
        table = matrix(self.graph, words, (text.vocabulary, c), self.weights)
        rows = self.graph.parameter(places, (text.positions, c))
        return self.graph.call("embedding", self.ids, table, rows)

    def attended(self, to: Layers) -> Callable[[Value, LayerNames], Value]:
        """Return what records a layer's attention: of each token to itself and to those before it,
        of padded texts to all.
        """
        if self.config.text.pad is not None:
            return to.attended(self.lengths)
        c, heads = to.config.hidden, to.config.heads

        def mix(x: Value, names: LayerNames) -> Value:
            qkv = [to.linear(x, c, part) for part in (names.query, names.key, names.value)]
            shared = {"heads": heads, "kv_heads": heads, "causal": True}
            return self.graph.call("dot_product_attention", *qkv, self.lengths, **shared)

        return mix


def unit_length(graph: Graph, x: Value) -> Value:
    """Record embeddings (B, D) -> embeddings of length 1."""
    return graph.call("l2_normalise", x, eps=_EPS)
