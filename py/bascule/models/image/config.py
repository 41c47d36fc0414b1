"""The config of image encoders that cut an image into patches (Dosovitskiy et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import MAX_LAYERS, Settings

# Hugging Face's names of activations, and those of `graph.activated`.
_ACTIVATIONS = {
    **{"gelu": "gelu", "relu": "relu", "silu": "silu", "quick_gelu": "quick_gelu"},
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"},
}
_LARGEST_IMAGE = 4096
_MAX_PATCHES = 1 << 14


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
    """Images of `image` x `image` pixels, cut into squares of `patch` x `patch`.

    The table of positions has `table` x `table` rows for patches, after one for the class token if
    the model has a `token`.
    """

    image: int
    patch: int
    table: int
    token: bool = True

    def seeing(self, image: int, file: str) -> PatchesConfig:
        """Return the same for images of another size; ModelFileError for an impossible one."""
        result = replace(self, image=image)
        if not 1 <= result.patches <= _MAX_PATCHES:  # pixels past the last whole patch are not read
            limits = f"1 to {_MAX_PATCHES:,} patches of {self.patch} x {self.patch}"
            raise ModelFileError(file, f"images of {image} x {image} pixels are not {limits}")
        return result

    @property
    def side(self) -> int:
        """Patches along an edge of an image."""
        return self.image // self.patch

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return self.side**2

    @property
    def places(self) -> int:
        """Positions: one per patch, and the class token's if there is one."""
        return self.token + self.patches


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image encoder."""

    layers: LayersConfig
    cut: PatchesConfig


def read_layers(
    read: Settings,
    config: Mapping[str, Any],
    activation: str,
    *,
    inner: int | None = None,
    eps: float = 0,
) -> LayersConfig:
    """Read the sizes of layers; `activation` is the default one, and `eps` another default.

    `inner` is the feed-forward size if config.json has no intermediate_size. ModelFileError if they
    are unsound, UnsupportedModelError for an unsupported activation.
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
        layers=read.size("num_hidden_layers", largest=MAX_LAYERS),
        heads=heads,
        inner=read.size("intermediate_size") if inner is None else inner,
        activation=_ACTIVATIONS[named],
        eps=read.number("layer_norm_eps", eps or (1e-12 if activation == "gelu" else 1e-5), 0, 1),
    )


def read_patches(read: Settings, default: int = 16, *, token: bool = True) -> PatchesConfig:
    """Read the sizes of images and patches, `default` if not set; errors as `read_layers`.

    `token` says whether a class token precedes the patches.
    """
    read.expect({"num_channels": 3})
    image = read.size("image_size", 224, _LARGEST_IMAGE)
    patch = read.size("patch_size", default, _LARGEST_IMAGE)
    return PatchesConfig(image, patch, image // patch, token).seeing(image, read.file)
