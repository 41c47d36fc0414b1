"""The settings of image encoders that cut an image into patches (Dosovitskiy et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import MOST_LAYERS, Settings

# Hugging Face's names of activations, and those of `graph.activated`.
_ACTIVATIONS = {
    **{"gelu": "gelu", "relu": "relu", "silu": "silu", "quick_gelu": "quick_gelu"},
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"},
}
_LARGEST_IMAGE = 4096
_MOST_PATCHES = 1 << 14


@dataclass(frozen=True, slots=True)
class LayersConfig:
    """Checked sizes of layers that normalize before each part."""

    hidden: int
    layers: int
    heads: int
    inner: int
    activation: str
    eps: float


@dataclass(frozen=True, slots=True)
class PatchesConfig:
    """Images of `image` x `image` pixels, cut into squares of `patch` x `patch`."""

    image: int
    patch: int

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2

    @property
    def places(self) -> int:
        """Positions: the class token's, then one a patch."""
        return 1 + self.patches


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image encoder."""

    layers: LayersConfig
    cut: PatchesConfig


def read_layers(read: Settings, config: Mapping[str, Any], activation: str) -> LayersConfig:
    """Read the sizes of layers; `activation` is the default one.

    ModelFileError if they are unsound, UnsupportedModelError for an activation that does not run.
    """
    named = config.get("hidden_act")
    named = activation if named is None else named
    if not isinstance(named, str):
        raise ModelFileError(read.file, f"hidden_act is {str(named)[:40]}, expected a name")
    if named not in _ACTIVATIONS:
        problem = f"hidden_act is {named[:40]!r}, and this version runs {', '.join(_ACTIVATIONS)}"
        raise UnsupportedModelError(read.file, problem)
    hidden, heads = read.size("hidden_size"), read.size("num_attention_heads")
    # Kernels read a head's numbers by fours.
    if hidden % heads or hidden // heads % 4:
        raise ModelFileError(read.file, f"hidden_size {hidden} does not fit {heads} heads")
    return LayersConfig(
        hidden=hidden,
        layers=read.size("num_hidden_layers", largest=MOST_LAYERS),
        heads=heads,
        inner=read.size("intermediate_size"),
        activation=_ACTIVATIONS[named],
        eps=read.number("layer_norm_eps", 1e-12 if activation == "gelu" else 1e-5, 0, 1),
    )


def read_patches(read: Settings) -> PatchesConfig:
    """Read the sizes of images and patches; errors as `read_layers`."""
    read.expect({"num_channels": 3})
    image = read.size("image_size", 224, _LARGEST_IMAGE)
    patch = read.size("patch_size", 16, _LARGEST_IMAGE)
    found = PatchesConfig(image, patch)
    if not 1 <= found.patches <= _MOST_PATCHES:  # pixels past the last whole patch are not read
        problem = f"image_size {image} is not 1 to {_MOST_PATCHES:,} patches of {patch} x {patch}"
        raise ModelFileError(read.file, problem)
    return found
