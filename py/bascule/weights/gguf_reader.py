"""Little-endian numbers and strings out of a file's first bytes, none of which is trusted.

A length or a count is believed only once the file is long enough for it: a lie allocates nothing.
"""

from __future__ import annotations

import struct

from bascule.errors import ModelFileError

# Large vocabularies (262k tokens with their merges) need about 16 MiB.
MOST_HEADER_NBYTES = 64 << 20
# Strings, booleans and arrays inside arrays cost Python more time and memory than room in a file.
MOST_ITEMS = 1 << 20
# What one array inside an array counts for: measured, 4 microseconds against 0.5 for a string.
INNER_ARRAY_ITEMS = 16
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class Short(Exception):
    """The header needs the first `nbytes` bytes of the file, and fewer were given."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def fault(place: str, where: str, expected: str, found: str, hint: str = "") -> ModelFileError:
    """An error that says where in the file it is, what belongs there and what stands there."""
    return ModelFileError(place, f"{where}: expected {expected}, found {found}", hint=hint)


def quoted(name: str) -> str:
    """A name out of the file as a short printable text."""
    text = repr(name[:80])
    return text if len(name) <= 80 and len(text) <= 90 else f"{text[:80]}...'"


class Reader:
    """A place in the file that moves on with all that is read, and never past its end."""

    __slots__ = ("at", "data", "file_nbytes", "items_left", "place")

    def __init__(self, data: bytes, file_nbytes: int, place: str) -> None:
        self.data, self.file_nbytes, self.place = data, file_nbytes, place
        self.at = 0
        self.items_left = MOST_ITEMS

    def fault(self, where: str, expected: str, found: str, hint: str = "") -> ModelFileError:
        """An error in this file."""
        return fault(self.place, where, expected, found, hint)

    def need(self, nbytes: int, where: str) -> None:
        """See that `nbytes` more bytes are here. Short if they could still come."""
        end = self.at + nbytes
        if end <= len(self.data) and end <= MOST_HEADER_NBYTES:
            return
        self.could_need(nbytes, where)
        raise Short(end)

    def could_need(self, nbytes: int, where: str) -> None:
        """See that the file, and a header in it, has room for `nbytes` more bytes."""
        remaining = self.file_nbytes - self.at
        if nbytes > remaining:
            expected = f"no more than the {remaining:,} bytes left in the file"
            raise self.fault(where, expected, f"{nbytes:,} bytes")
        if self.at + nbytes > MOST_HEADER_NBYTES:
            expected = f"a header of at most {MOST_HEADER_NBYTES:,} bytes"
            raise self.fault(where, expected, f"at least {self.at + nbytes:,}")

    def take(self, nbytes: int, where: str) -> bytes:
        """The next `nbytes` bytes."""
        self.need(nbytes, where)
        self.at += nbytes
        return self.data[self.at - nbytes : self.at]

    def u32(self, where: str) -> int:
        """The next unsigned number of 4 bytes."""
        return _U32.unpack(self.take(4, where))[0]

    def u64(self, where: str) -> int:
        """The next unsigned number of 8 bytes: a "negative" one is a very large one here."""
        return _U64.unpack(self.take(8, where))[0]

    def count(self, where: str, most: int, least_nbytes: int) -> int:
        """A number of things to come. Refused past `most` or past what the file has room for."""
        count = self.u64(where)
        if count > most:
            raise self.fault(where, f"at most {most:,}", f"{count:,}")
        self.could_need(count * least_nbytes, where)
        return count

    def name(self, where: str, most_nbytes: int) -> str:
        """A string that names something: not empty, not long, without NUL."""
        nbytes = self.u64(where)
        if not 1 <= nbytes <= most_nbytes:
            raise self.fault(where, f"a name of 1 to {most_nbytes:,} bytes", f"{nbytes:,}")
        name = self.text(nbytes, where)
        if "\0" in name:
            # A reader written in C would take it for a shorter name.
            raise self.fault(where, "a name without NUL", quoted(name))
        return name

    def text(self, nbytes: int, where: str) -> str:
        """The next `nbytes` bytes as UTF-8."""
        start = self.at
        try:
            return str(self.take(nbytes, where), "utf-8")
        except UnicodeDecodeError:
            raise self.fault(where, "UTF-8", f"other bytes from byte {start:,} on") from None

    def strings(self, count: int, where: str) -> tuple[str, ...]:
        """`count` strings. Vocabularies: a tight loop that knows the bytes' end."""
        data, at, end = self.data, self.at, min(len(self.data), MOST_HEADER_NBYTES)
        results: list[str] = []
        try:
            for _ in range(count):
                # A length that is cut off reads as too small or too large: `stop` settles both.
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

    def spend(self, count: int, where: str) -> None:
        """Count strings, booleans and inner arrays. Refused once they are too many in all."""
        if count > self.items_left:
            expected = f"at most {MOST_ITEMS:,} strings, booleans and inner arrays (as 16) in all"
            raise self.fault(where, expected, f"{count:,} after {MOST_ITEMS - self.items_left:,}")
        self.items_left -= count
