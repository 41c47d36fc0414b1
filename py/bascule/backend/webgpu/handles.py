"""Integer handles of driver objects: an index in the low bits, a generation in the high ones."""

from __future__ import annotations

from typing import Generic, TypeVar

from bascule.errors import GpuError

T = TypeVar("T")

INDEX_BITS = 20
_INDEX_MASK = (1 << INDEX_BITS) - 1
_GENERATIONS = 1 << (31 - INDEX_BITS)


class Handles(Generic[T]):
    """A table of live objects. A freed handle is rejected, even after its index is reused.

    Handles stay below 2**31 so that they fit the int32 words of a tape; 0 is never a handle.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: list[T | None] = [None]
        self._generations: list[int] = [0]
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._objects) - 1 - len(self._free)

    def __contains__(self, name: int) -> bool:
        return self._find(name) is not None

    def add(self, item: T) -> int:
        """Return a handle of an object."""
        if self._free:
            index = self._free.pop()
            self._objects[index] = item
        else:
            index = len(self._objects)
            if index > _INDEX_MASK:
                raise GpuError("alloc", f"more than {_INDEX_MASK:,} live {self._kind}s.")
            self._objects.append(item)
            self._generations.append(0)
        return (self._generations[index] << INDEX_BITS) | index

    def get(self, name: int) -> T:
        """Return the object of a live handle; GpuError for any other."""
        item = self._find(name)
        if item is not None:
            return item
        raise GpuError(
            self._kind, f"no live {self._kind} is named {name}: it was freed or never made."
        )

    def _find(self, name: int) -> T | None:
        index = name & _INDEX_MASK
        if index < len(self._objects) and self._generations[index] == name >> INDEX_BITS:
            return self._objects[index]
        return None

    def remove(self, name: int) -> T:
        """Remove a handle and return its object."""
        item = self.get(name)
        index = name & _INDEX_MASK
        self._objects[index] = None
        self._generations[index] = (self._generations[index] + 1) % _GENERATIONS
        self._free.append(index)
        return item

    def clear(self) -> list[T]:
        """Remove all handles and return the live objects."""
        live = [item for item in self._objects if item is not None]
        for index, item in enumerate(self._objects):
            if item is not None:
                self.remove((self._generations[index] << INDEX_BITS) | index)
        return live
