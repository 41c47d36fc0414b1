"""Read the bytes of our own WebAssembly in order."""

from __future__ import annotations


class Reader:
    """Reads bytes, numbers and vectors of the specification's chapter 5."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    @property
    def has_more(self) -> bool:
        """Whether anything remains."""
        return self.at < len(self._data)

    def byte(self) -> int:
        """Read a byte."""
        self.at += 1
        return self._data[self.at - 1]

    def number(self) -> int:
        """Read an unsigned number (LEB128); skips a signed one."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    def take(self, n: int) -> bytes:
        """Read n bytes."""
        self.at += n
        return self._data[self.at - n : self.at]

    def bytes(self) -> bytes:
        """Read bytes after their count."""
        return self.take(self.number())
