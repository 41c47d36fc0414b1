"""numpy's dtypes of WGSL's types, with their layout in a buffer."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import NUMPY, np
from bascule.errors import InputError
from bascule.kernels.wgsl_types import ArrayOf, Matrix, Scalar, StoredType, Struct, Vector


def dtype_of(type: StoredType) -> np.dtype[Any]:
    """Return the dtype of one element: for a struct with its members at WGSL's offsets.

    For an array without a size it is that of its elements. A vector or matrix becomes a subarray;
    columns of three numbers have a fourth, which is padding.
    """
    if isinstance(type, ArrayOf):
        element = _strided(dtype_of(type.element), type.stride)
        return element if type.count is None else np.dtype((element, (type.count,)))
    if isinstance(type, Struct):
        members = type.members
        if isinstance(members[-1].type, ArrayOf) and members[-1].type.count is None:
            expected = "a struct of a fixed size"
            raise InputError(f"dtype of {type}", expected, f"{members[-1].name} without a size")
        fields = {
            "names": [member.name for member in members],
            "formats": [dtype_of(member.type) for member in members],
            "offsets": [member.offset for member in members],
            "itemsize": type.nbytes,
        }
        return np.dtype(fields)  # pyright: ignore[reportArgumentType, reportCallIssue]
    if isinstance(type, Vector):
        return np.dtype((_number(type.scalar), (type.n,)))
    if isinstance(type, Matrix):
        rows = type.column.align // type.scalar.nbytes
        return np.dtype((_number(type.scalar), (type.columns, rows)))
    return _number(type)


def _number(scalar: Scalar) -> np.dtype[Any]:
    return np.dtype(NUMPY[scalar.name])


def _strided(dtype: np.dtype[Any], stride: int) -> np.dtype[Any]:
    """Pad a dtype at its end, if the stride is larger than its size."""
    if dtype.itemsize == stride:
        return dtype
    fields = {"names": ["value"], "formats": [dtype], "offsets": [0], "itemsize": stride}
    return np.dtype(fields)  # pyright: ignore[reportArgumentType, reportCallIssue]
