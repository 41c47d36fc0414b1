"""The subject of a selection: a piece of work, and the backends for it."""

from __future__ import annotations

from typing import NamedTuple

from bascule.backend.tiers import BackendType as BackendType
from bascule.errors import InputError


def backend_named(name: BackendType | str, where: str) -> BackendType:
    """Return the member of that name; InputError if there is none."""
    try:
        return BackendType(name)
    except ValueError:
        known = ", ".join(n.lower().replace("_", "-") for n in BackendType.__members__)
        raise InputError(where, f"one of {known}", repr(name)) from None


class WorkloadCharacteristics(NamedTuple):
    """A piece of work, as far as it matters for choosing a backend.

    `data_size` counts elements, `data_shape` is their shape, `dtype_size` the bytes of one (no GPU
    tier has floats of 8). `is_iterative`: the work continues where the data is, so the transfer
    counts once. No tier computes gradients: `requires_gradient` changes no choice, and is logged. A
    named tuple, because it is a dict key in each selection: C hashes it.
    """

    operation_type: str
    data_size: int
    data_shape: tuple[int, ...] = ()
    dtype_size: int = 4
    is_iterative: bool = False
    requires_gradient: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return self.data_size * self.dtype_size

    @property
    def bucket(self) -> int:
        """The size class in which times are learned: from one power of two to the next."""
        return int(self.data_size).bit_length()

    def checked(self) -> WorkloadCharacteristics:
        """Return plain, hashable values; InputError for invalid ones."""
        try:
            shape = tuple(int(n) for n in self.data_shape)
            size, dtype_size = int(self.data_size), int(self.dtype_size)
        except (TypeError, ValueError) as error:
            raise InputError("workload", "whole numbers for its sizes", str(error)) from None
        if not isinstance(self.operation_type, str) or not self.operation_type:
            raise InputError("workload", "an operation_type", repr(self.operation_type))
        if size < 0 or dtype_size < 1 or any(n < 0 for n in shape):
            result = f"data_size {size}, dtype_size {dtype_size}, data_shape {shape}"
            raise InputError("workload", "sizes from 0, dtype_size from 1", result)
        flags = bool(self.is_iterative), bool(self.requires_gradient)
        return WorkloadCharacteristics(self.operation_type, size, shape, dtype_size, *flags)
