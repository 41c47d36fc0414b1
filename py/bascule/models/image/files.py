"""The tensors of an image model's folder, by its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from bascule.models.image.config import LayersConfig, PatchesConfig
from bascule.models.image.graph import LayerNames
from bascule.weights.safetensors import TensorInfo

Sizes = tuple[str, tuple[int, ...]]


def linear_tensors(name: str, n: int, k: int) -> Iterator[Sizes]:
    """Yield a linear layer's tensors."""
    yield f"{name}.weight", (n, k)
    yield f"{name}.bias", (n,)


def norm_tensors(name: str, c: int) -> Iterator[Sizes]:
    """Yield a layer norm's tensors."""
    yield f"{name}.weight", (c,)
    yield f"{name}.bias", (c,)


def patch_tensors(
    cut: PatchesConfig, c: int, projection: str, token: str, table: str
) -> Iterator[Sizes]:
    """Yield the tensors of `ImageEncoderGraph.positions`, except a projection's bias."""
    yield f"{projection}.weight", (c, 3 * cut.patch**2)
    if cut.token:
        yield token, (1, c)
    yield table, (cut.token + cut.table**2, c)


def layer_tensors(config: LayersConfig, names: LayerNames) -> Iterator[Sizes]:
    """Yield the tensors of `Layers.record`."""
    c, inner = config.hidden, config.inner
    for layer in range(config.layers):
        name = names.layer.format(layer)
        yield from norm_tensors(f"{name}.{names.before}", c)
        for part in (names.query, names.key, names.value, names.mixed):
            yield from linear_tensors(f"{name}.{part}", c, c)
        yield from norm_tensors(f"{name}.{names.after}", c)
        yield from linear_tensors(f"{name}.{names.up}", inner, c)
        yield from linear_tensors(f"{name}.{names.down}", c, inner)
        for scale in (names.mixed_scale, names.down_scale):
            if scale:
                yield f"{name}.{scale}", (c,)


def as_matrices(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return tensors with at most two axes.

    A convolution's weight (N, 3, P, P) is the matrix of its windows, a table (1, T, C) is (T, C).
    """
    return {name: replace(t, shape=_flat(t.shape)) for name, t in tensors.items()}


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    match shape:
        case (1, rows, columns):
            return (rows, columns)
        case (n, *inner) if len(inner) > 1:
            return (n, prod(inner))
        case _:
            return shape
