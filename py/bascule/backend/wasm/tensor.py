"""Dense arrays in the kernels' memory: an address for the kernels, a view for numpy."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.base.arrays import NUMPY, Array, np
from bascule.base.dtypes import BlockType

if TYPE_CHECKING:
    from typing_extensions import Buffer

ITEM_NBYTES = {"f32": 4, "u32": 4, "i32": 4, "f16": 2, "u8": 1}


class Tensor:
    """A row-major array of `dtype` at `address`.

    `memory` is the ctypes array that holds it, and keeps it allocated. `np.asarray` of a tensor is
    a view of it.
    """

    __slots__ = ("address", "dtype", "memory", "shape")

    def __init__(self, memory: Any, address: int, shape: tuple[int, ...], dtype: str) -> None:
        self.memory = memory
        self.address = address
        self.shape = shape
        self.dtype = dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * ITEM_NBYTES[self.dtype]

    def __len__(self) -> int:
        return self.shape[0]

    def bytes(self) -> memoryview:
        """Its memory, byte by byte."""
        return memoryview(self.memory).cast("B")[: self.nbytes]

    def write(self, data: Buffer, offset: int = 0) -> None:
        """Copy dense numbers of its own dtype to byte `offset`."""
        view = dense(data)
        self.bytes()[offset : offset + view.nbytes] = view

    def rows(self, count: int) -> Tensor:
        """Return a view of the first rows."""
        return Tensor(self.memory, self.address, (count, *self.shape[1:]), self.dtype)

    def reshape(self, shape: tuple[int, ...]) -> Tensor:
        """Return a view in another shape."""
        return Tensor(self.memory, self.address, shape, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        result = np.frombuffer(self.bytes(), NUMPY.get(self.dtype, "uint8")).reshape(self.shape)
        wanted = result if dtype is None else result.astype(dtype, copy=False)
        return wanted.copy() if copy else wanted


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix (N, K) in a file's blocks; `data` are their bytes (n,)."""

    type: BlockType
    shape: tuple[int, int]
    data: Tensor


def dense(data: Buffer) -> memoryview:
    """Return the bytes of a row-major array or buffer; of any other a dense copy."""
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
