"""Arrays on a device, by the Array API standard 2025.12: `import bascule.array as xp`.

dtypes: bool, int8, int16, int32, uint8, uint16, uint32, float16, float32. WebGPU has neither 64-bit
types nor complex numbers: asking for one raises an error that names the closest. Operations are
recorded and fused into few kernels; reading an array (`await x.numpy()`) or `await xp.eval(x)`
computes it. Arrays are created on the default device, see `set_default_device`.
"""

from __future__ import annotations

from math import e, inf, nan, pi
from typing import Any

from bascule.array import fft as fft
from bascule.array import linalg as linalg
from bascule.array import random as random
from bascule.array.array import Array, asarray
from bascule.array.array import evaluate as eval
from bascule.array.creation import (
    arange,
    empty,
    empty_like,
    eye,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)  # fmt: skip
from bascule.array.dtypes import NAMES as _DTYPES
from bascule.array.dtypes import NEAREST as _NEAREST
from bascule.array.dtypes import can_cast, isdtype, named, result_type, unsupported
from bascule.array.elementwise import FUNCTIONS, clip, conj, imag, real, where
from bascule.array.inspection import NamespaceInfo, finfo, iinfo
from bascule.array.linear import matmul, matrix_transpose, tensordot, vecdot
from bascule.array.manipulation import (
    astype,
    broadcast_arrays,
    broadcast_shapes,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    tile,
    unstack,
)  # fmt: skip
from bascule.array.place import ArrayDevice, default_device, device, set_default_device
from bascule.array.sorting import (
    argsort,
    diff,
    isin,
    nonzero,
    searchsorted,
    sort,
    take,
    take_along_axis,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)  # fmt: skip
from bascule.array.statistics import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    max,
    mean,
    min,
    std,
    sum,
    var,
)  # fmt: skip
from bascule.array.statistics import prod_ as prod

__array_api_version__ = "2025.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")
newaxis = None
from_dlpack = asarray

globals().update(FUNCTIONS)

from bascule.array import numpy_functions as numpy_functions  # noqa: E402  # names all of the above


def __array_namespace_info__() -> NamespaceInfo:
    """The namespace's dtypes, devices and capabilities."""
    return NamespaceInfo()


def __getattr__(name: str) -> Any:
    """Return a dtype by name; numpy is imported with the first."""
    if name in _DTYPES:
        return named(name)
    if name in _NEAREST:
        raise unsupported(name)
    raise AttributeError(f"module 'bascule.array' has no attribute {name!r}")


__all__ = [
    "Array",
    "ArrayDevice",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "astype",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "can_cast",
    "clip",
    "concat",
    "conj",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "default_device",
    "device",
    "diff",
    "e",
    "empty",
    "empty_like",
    "eval",
    "expand_dims",
    "eye",
    "fft",
    "finfo",
    "flip",
    "from_dlpack",
    "full",
    "full_like",
    "iinfo",
    "imag",
    "inf",
    "isdtype",
    "isin",
    "linalg",
    "linspace",
    "matmul",
    "matrix_transpose",
    "max",
    "mean",
    "meshgrid",
    "min",
    "moveaxis",
    "nan",
    "newaxis",
    "nonzero",
    "ones",
    "ones_like",
    "permute_dims",
    "pi",
    "prod",
    "random",
    "real",
    "repeat",
    "reshape",
    "result_type",
    "roll",
    "searchsorted",
    "set_default_device",
    "sort",
    "squeeze",
    "stack",
    "std",
    "sum",
    "take",
    "take_along_axis",
    "tensordot",
    "tile",
    "tril",
    "triu",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unstack",
    "var",
    "vecdot",
    "where",
    "zeros",
    "zeros_like",
]  # fmt: skip
