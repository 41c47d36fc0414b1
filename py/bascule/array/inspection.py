"""The inspection API of the Array API standard: dtypes, their limits, devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bascule.array import dtypes
from bascule.array.dtypes import DType
from bascule.array.errors import DTypeError
from bascule.array.place import TIERS, ArrayDevice, default_device, device
from bascule.base.arrays import np


@dataclass(frozen=True, slots=True)
class FloatLimits:
    """The result of `finfo`."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class WholeLimits:
    """The result of `iinfo`."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: Any, /) -> FloatLimits:
    """Return the limits of a float dtype."""
    dtype = _dtype_of(type)
    if dtype.kind != "f":
        raise DTypeError("xp.finfo", "float16 or float32", str(dtype))
    result = np.finfo(dtype)
    eps, high, low = float(result.eps), float(result.max), float(result.min)
    return FloatLimits(result.bits, eps, high, low, float(result.smallest_normal), dtype)


def iinfo(type: Any, /) -> WholeLimits:
    """Return the limits of an integer dtype."""
    dtype = _dtype_of(type)
    if dtype.kind not in "iu":
        raise DTypeError("xp.iinfo", "an integer dtype", str(dtype))
    result = np.iinfo(dtype)
    return WholeLimits(result.bits, int(result.max), int(result.min), dtype)


def _dtype_of(type: Any) -> DType:
    return dtypes.checked(getattr(type, "dtype", type))


class NamespaceInfo:
    """The result of `__array_namespace_info__`."""

    def capabilities(self) -> dict[str, Any]:
        """Return the capabilities: data-dependent shapes need a read at once; at most 32 axes."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 32}

    def default_device(self) -> ArrayDevice:
        """Return the device of arrays that are created without one."""
        return default_device()

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """Return float32 and int32: there are no 64-bit and no complex types."""
        del device
        names = {"real floating": "float32", "integral": "int32", "indexing": "int32"}
        return {kind: dtypes.named(name) for kind, name in names.items()}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Any]:
        """Return the dtypes of a kind, by name."""
        del device
        every = {name: dtypes.named(name) for name in dtypes.NAMES}
        if kind is None:
            return every
        return {name: dtype for name, dtype in every.items() if dtypes.isdtype(dtype, kind)}

    def devices(self) -> tuple[ArrayDevice, ...]:
        """Return the devices of the tiers, which open at first use."""
        return tuple(device(tier) for tier in TIERS)
