"""The rewrites that there are, by the names of their strategies, in the order they are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from bascule.program.rewrites.embeddings import chunked_embedding
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.layers import layer_decomposition
from bascule.program.rewrites.quantization import progressive_quantization
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import Rewrite, StrategyName
from bascule.program.rewrites.tiles import tiled_extraction

# What has to fit a binding comes before what makes dispatches shorter, coarse parts before fine.
REWRITES: Mapping[StrategyName, Rewrite] = MappingProxyType(
    {
        "progressive_quantization": progressive_quantization,
        "tiled_extraction": tiled_extraction,
        "chunked_embedding": chunked_embedding,
        "layer_decomposition": layer_decomposition,
        "partitioned_kv_cache": partitioned_kv_cache,
        "head_partitioning": head_partitioning,
        "chunked_attention": chunked_attention,
    }
)


def rewrites_of(names: Collection[StrategyName], *, layer_processing: bool) -> list[Rewrite]:
    """Those of `names` that are rewrites; layer by layer only where that is switched on."""
    left_out = () if layer_processing else ("layer_decomposition",)
    return [rewrite for name, rewrite in REWRITES.items() if name in names and name not in left_out]
