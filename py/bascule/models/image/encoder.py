"""An image encoder that ends with a layer norm, as ViT and its successors are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bascule.errors import UnsupportedModelError
from bascule.models.image.config import ImageConfig
from bascule.models.image.files import Sizes, layer_tensors, norm_tensors, patch_tensors
from bascule.models.image.graph import ImageEncoderGraph, LayerNames, Layers
from bascule.models.settings import Settings
from bascule.program.program import Value

_PROJECTION = "embeddings.patch_embeddings.projection"
_TOKEN, _TABLE = "embeddings.cls_token", "embeddings.position_embeddings"


@dataclass(frozen=True, slots=True)
class PlainEncoder:
    """A family's names: of the parts of its layers, and of the supported `architectures`."""

    names: LayerNames
    architectures: tuple[str, ...]

    def checked(self, config: Mapping[str, Any], file: str) -> Settings:
        """Return a config.json's settings; UnsupportedModelError for another architecture."""
        read = Settings(config, file)
        read.expect({"qkv_bias": True, "quantization_config": None})
        listed = config.get("architectures") or self.architectures
        if not isinstance(listed, list | tuple) or not set(listed) <= set(self.architectures):
            problem = f"its architectures are {str(listed)[:60]}"
            raise UnsupportedModelError(file, f"{problem}, and {', '.join(self.architectures)} run")
        return read

    def tensors(self, config: ImageConfig) -> Iterator[Sizes]:
        """Yield the tensors that `record` reads, with their shapes."""
        c = config.layers.hidden
        yield from patch_tensors(config.cut, c, _PROJECTION, _TOKEN, _TABLE)
        yield f"{_PROJECTION}.bias", (c,)
        yield from layer_tensors(config.layers, self.names)
        yield from norm_tensors("layernorm", c)

    def record(self, to: ImageEncoderGraph, lengths: Value) -> Value:
        """Record pixels -> features of each position (B, T, C)."""
        layers = Layers(to.graph, to.config.layers, self.names, to.weights)
        x = to.positions(_PROJECTION, _TOKEN, _TABLE, biased=True)
        x = layers.record(x, layers.attended(lengths))
        return layers.norm(x, "layernorm")
