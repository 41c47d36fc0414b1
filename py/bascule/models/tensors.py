"""Compare the tensors of a folder with those of its config before any program exists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.weights.safetensors import TensorInfo

# A tensor's name and its shape; ANY matches any number of rows.
Tensors: TypeAlias = Iterable[tuple[str, tuple[int, ...]]]
ANY = -1


def compare_tensors(
    expected: Tensors,
    stored: Mapping[str, TensorInfo],
    ignored: re.Pattern[str],
    place: str,
    *,
    settings: str = "config.json",
    hint: str = "",
) -> None:
    """Compare a folder's tensors with those that are `expected`.

    ModelFileError if one is missing or has another shape than by the `settings`,
    UnsupportedModelError for one that is neither read nor `ignored`; `hint` says what to do then.
    """
    known: set[str] = set()
    for name, shape in expected:
        tensor = stored.get(name)
        if tensor is None:
            raise ModelFileError(place, f"it lacks the tensor {name!r} of its {settings}")
        if not _fits(tensor.shape, shape):
            problem = f"tensor {name!r} is {list(tensor.shape)}, and its {settings} makes it"
            raise ModelFileError(place, f"{problem} {_written(shape)}")
        known.add(name)
    for name in sorted(stored.keys() - known):
        if not ignored.fullmatch(name):
            problem = f"it has the tensor {name[:80]!r}, which this version does not run"
            raise UnsupportedModelError(place, problem, hint=hint)


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if expected and len(shape) == len(expected) and expected[0] == ANY:
        return shape[0] > 0 and shape[1:] == expected[1:]
    return shape == expected


def _written(shape: tuple[int, ...]) -> str:
    return f"[{', '.join('rows' if size == ANY else str(size) for size in shape)}]"
