"""Bytes of our own WebAssembly, read in order."""

from __future__ import annotations


class Reader:
    """Reads what chapter 5 of the specification calls bytes, numbers and vectors."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def has_more(self) -> bool:
        """Whether anything is left."""
        return self.at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        self.at += 1
        return self._data[self.at - 1]

    def number(self) -> int:
        """The next number without a sign (LEB128); of one with a sign, where it ends."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        self.at += n
        return self._data[self.at - n : self.at]

    def bytes(self) -> bytes:
        """The bytes behind their number."""
        return self.take(self.number())
