"""Read little-endian numbers and strings from untrusted bytes.

A length or count is accepted only if the file is long enough for it, so a false one allocates
nothing.
"""

from __future__ import annotations

import struct

from bascule.errors import ModelFileError

# Large vocabularies (262k tokens with their merges) need about 16 MiB.
MAX_HEADER_NBYTES = 64 << 20
# Strings, booleans and nested arrays cost Python more time and memory than bytes in the file.
MAX_ITEMS = 1 << 20
# Cost of a nested array in items: 4 microseconds, measured, against 0.5 for a string.
INNER_ARRAY_ITEMS = 16
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class HeaderTooShort(Exception):
    """The header needs the first `nbytes` bytes of the file, and fewer were passed."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def fault(place: str, where: str, expected: str, found: str, hint: str = "") -> ModelFileError:
    """Return an error with the place in the file, the expected value and the value found."""
    return ModelFileError(place, f"{where}: expected {expected}, found {found}", hint=hint)


def quoted(name: str) -> str:
    """Return a name from the file as a short printable text."""
    text = repr(name[:80])
    return text if len(name) <= 80 and len(text) <= 90 else f"{text[:80]}...'"


class Reader:
    """A read position in the file's first bytes that never passes their end."""

    __slots__ = ("at", "data", "file_nbytes", "items_left", "place")

    def __init__(self, data: bytes, file_nbytes: int, place: str) -> None:
        self.data, self.file_nbytes, self.place = data, file_nbytes, place
        self.at = 0
        self.items_left = MAX_ITEMS

    def fault(self, where: str, expected: str, found: str, hint: str = "") -> ModelFileError:
        """Return an error in this file."""
        return fault(self.place, where, expected, found, hint)

    def need(self, nbytes: int, where: str) -> None:
        """Check that `nbytes` more bytes are here; Short if more of the file has to be read."""
        end = self.at + nbytes
        if end <= len(self.data) and end <= MAX_HEADER_NBYTES:
            return
        self.check_room(nbytes, where)
        raise HeaderTooShort(end)

    def check_room(self, nbytes: int, where: str) -> None:
        """Check that the file, and its header, have room for `nbytes` more bytes."""
        remaining = self.file_nbytes - self.at
        if nbytes > remaining:
            expected = f"no more than the {remaining:,} bytes left in the file"
            raise self.fault(where, expected, f"{nbytes:,} bytes")
        if self.at + nbytes > MAX_HEADER_NBYTES:
            expected = f"a header of at most {MAX_HEADER_NBYTES:,} bytes"
            raise self.fault(where, expected, f"at least {self.at + nbytes:,}")

    def take(self, nbytes: int, where: str) -> bytes:
        """Return the next `nbytes` bytes."""
        self.need(nbytes, where)
        self.at += nbytes
        return self.data[self.at - nbytes : self.at]

    def u32(self, where: str) -> int:
        """Read a u32."""
        return _U32.unpack(self.take(4, where))[0]

    def u64(self, where: str) -> int:
        """Read a u64; a negative number in the file reads as a very large one."""
        return _U64.unpack(self.take(8, where))[0]

    def count(self, where: str, max_count: int, min_nbytes: int) -> int:
        """Read the number of items that follow; an error past `max_count` or the file's end."""
        count = self.u64(where)
        if count > max_count:
            raise self.fault(where, f"at most {max_count:,}", f"{count:,}")
        self.check_room(count * min_nbytes, where)
        return count

    def name(self, where: str, max_nbytes: int) -> str:
        """Read a name: not empty, not long, without NUL."""
        nbytes = self.u64(where)
        if not 1 <= nbytes <= max_nbytes:
            raise self.fault(where, f"a name of 1 to {max_nbytes:,} bytes", f"{nbytes:,}")
        name = self.text(nbytes, where)
        if "\0" in name:
            # A reader written in C would stop at the NUL.
            raise self.fault(where, "a name without NUL", quoted(name))
        return name

    def text(self, nbytes: int, where: str) -> str:
        """Read `nbytes` bytes of UTF-8."""
        start = self.at
        try:
            return str(self.take(nbytes, where), "utf-8")
        except UnicodeDecodeError:
            raise self.fault(where, "UTF-8", f"other bytes from byte {start:,} on") from None

    def strings(self, count: int, where: str) -> tuple[str, ...]:
        """Read `count` strings in a tight loop: vocabularies are long."""
        data, at, end = self.data, self.at, min(len(self.data), MAX_HEADER_NBYTES)
        results: list[str] = []
        try:
            for _ in range(count):
                # A truncated length reads as too small or too large; the check of `stop` catches
                # both.
                start = at + 8
                stop = start + int.from_bytes(data[at:start], "little")
                if stop > end:
                    break
                results.append(str(data[start:stop], "utf-8"))
                at = stop
        except UnicodeDecodeError:
            expected = f"UTF-8 in string {len(results):,}"
            raise self.fault(where, expected, f"other bytes from byte {at + 8:,} on") from None
        self.at = at
        if len(results) < count:
            self.need(self.u64(where), f"{where}, string {len(results):,}")
        return tuple(results)

    def count_items(self, count: int, where: str) -> None:
        """Count strings, booleans and nested arrays; an error once there are too many in total."""
        if count > self.items_left:
            expected = f"at most {MAX_ITEMS:,} strings, booleans and inner arrays (as 16) in all"
            raise self.fault(where, expected, f"{count:,} after {MAX_ITEMS - self.items_left:,}")
        self.items_left -= count
