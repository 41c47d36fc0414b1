"""How loops of WebAssembly combine elements: four lanes at a time, in an accumulator of one or two.

Sums and products of floats are accumulated in doubles: as fast as in floats here, where an addition
waits for the previous one as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bascule.array.dtypes import DType, Kind, kind_of
from bascule.array.wasm_rows import NARROWED

# How two lanes combine, and the identity; floats' sums and products are `_WIDE`.
_COMBINED: Mapping[tuple[str, Kind], tuple[str, str]] = {
    ("sum", "i"): ("i32x4.add", "i32x4.const 0"),
    ("sum", "u"): ("i32x4.add", "i32x4.const 0"),
    ("prod", "i"): ("i32x4.mul", "i32x4.const 1"),
    ("prod", "u"): ("i32x4.mul", "i32x4.const 1"),
    ("max", "i"): ("i32x4.max_s", "i32x4.const 0x80000000"),
    ("max", "u"): ("i32x4.max_u", "i32x4.const 0"),
    # One instruction, where f32x4.max takes eight on x86; NaN is tested separately.
    ("max", "f"): ("f32x4.pmax", "i32x4.const 0xff800000"),
    ("min", "i"): ("i32x4.min_s", "i32x4.const 0x7fffffff"),
    ("min", "u"): ("i32x4.min_u", "i32x4.const 0xffffffff"),
    ("min", "f"): ("f32x4.pmin", "i32x4.const 0x7f800000"),
    ("any", "b"): ("v128.or", "i32x4.const 0"),
    ("all", "b"): ("v128.and", "i32x4.const 0xffffffff"),
}
_WIDE: Mapping[str, tuple[str, int]] = {"sum": ("add", 0), "prod": ("mul", 1)}
_UPPER = "i8x16.shuffle 8 9 10 11 12 13 14 15 8 9 10 11 12 13 14 15"
_SECOND = "i8x16.shuffle 4 5 6 7 4 5 6 7 4 5 6 7 4 5 6 7"
_FIRST = "i8x16.shuffle 0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3"
_FOUR_FLOATS = "i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23"
# Columns whose accumulators are in memory at once: in the nearest cache.
COLUMNS = 1024
# Where a column's second local is, at four bytes each; and room for a last vector.
_SECOND_AT = 4 * (COLUMNS + 4)
ACCUMULATORS_NBYTES = 2 * _SECOND_AT


@dataclass(frozen=True, slots=True)
class Accumulator:
    """The instructions of one reduction; its locals are `name`l and, if it `has_two`, `name`h.

    Wide ones hold two doubles each, extremes of floats hold lanes and where NaN was.
    """

    combination: str
    dtype: DType

    @property
    def _is_wide(self) -> bool:
        return self.dtype.kind == "f" and self.combination in _WIDE

    @property
    def has_two(self) -> bool:
        """Whether it has a second local."""
        return self.dtype.kind == "f"

    @property
    def _lanes(self) -> tuple[str, str]:
        return _COMBINED[self.combination, kind_of(self.dtype)]

    @property
    def identity(self) -> str:
        """Return lanes that change no result."""
        if self._is_wide:
            return f"f32x4.const {_WIDE[self.combination][1]}"
        return self._lanes[1]

    def initialized(self, name: str) -> str:
        """Set the locals."""
        if self._is_wide:
            start = f"f64x2.const {_WIDE[self.combination][1]}"
            return f"{start} local.set ${name}l {start} local.set ${name}h"
        watched = f"i32x4.const 0 local.set ${name}h" if self.has_two else ""
        return f"{self._lanes[1]} local.set ${name}l {watched}"

    def combined(self, name: str, value: str) -> str:
        """Accumulate four elements; `value` pushes them."""
        low, high = f"local.get ${name}l", f"local.get ${name}h"
        if self._is_wide:
            combine = f"f64x2.{_WIDE[self.combination][0]}"
            upper = f"{value} {value} {_UPPER} f64x2.promote_low_f32x4"
            return (
                f"{low} {value} f64x2.promote_low_f32x4 {combine} local.set ${name}l\n"
                f"{high} {upper} {combine} local.set ${name}h"
            )
        text = f"{low} {value} {self._lanes[0]} local.set ${name}l"
        if self.has_two:
            text += f"\n{high} {value} {value} f32x4.ne v128.or local.set ${name}h"
        return text

    def merged(self, name: str, other: str) -> str:
        """Merge another accumulator of its kind into it."""
        combine = f"f64x2.{_WIDE[self.combination][0]}" if self._is_wide else self._lanes[0]
        ways = {"l": combine}
        if self.has_two:
            ways["h"] = combine if self._is_wide else "v128.or"
        return "\n".join(
            f"local.get ${name}{end} local.get ${other}{end} {way} local.set ${name}{end}"
            for end, way in ways.items()
        )

    def loaded(self, name: str, scratch: str, u: int) -> str:
        """Read it from memory: that of four columns from `at` on, `u` vectors further."""
        return "\n".join(
            f"{place} v128.load {offset} local.set ${name}{end}"
            for end, place, offset in self._places(scratch, u)
        )

    def stored(self, name: str, scratch: str, u: int) -> str:
        """Write it there."""
        return "\n".join(
            f"{place} local.get ${name}{end} v128.store {offset}"
            for end, place, offset in self._places(scratch, u)
        )

    def _places(self, scratch: str, u: int) -> Iterator[tuple[str, str, int]]:
        shift = 3 if self._is_wide else 2
        column = f"local.get $at local.get $begin i32.sub i32.const {shift} i32.shl"
        place = f"local.get ${scratch} {column} i32.add"
        yield "l", place, (16 << self._is_wide) * u
        if self._is_wide:
            yield "h", place, 32 * u + 16
        elif self.has_two:
            yield "h", place, 16 * u + _SECOND_AT

    def four(self, name: str) -> str:
        """Push its lanes as four results."""
        low, high = f"local.get ${name}l", f"local.get ${name}h"
        if self._is_wide:
            halves = (f"{each} f32x4.demote_f64x2_zero" for each in (low, high))
            return f"{' '.join(halves)} {_FOUR_FLOATS}"
        if self.has_two:
            return f"f32x4.const nan {low} {high} v128.bitselect"
        return f"{low} {NARROWED.get(self.dtype.name, '')}"

    def one(self, name: str) -> str:
        """Push all its lanes combined: one result in all lanes."""
        if self._is_wide:
            combine = _WIDE[self.combination][0]
            both = f"local.get ${name}l local.get ${name}h f64x2.{combine} local.set ${name}l"
            first, second = (f"local.get ${name}l f64x2.extract_lane {at}" for at in (0, 1))
            return f"{both}\n{first} {second} f64.{combine} f32.demote_f64 f32x4.splat"
        lines: list[str] = []
        for shuffle in (_UPPER, _SECOND):
            ways = {"l": self._lanes[0], **({"h": "v128.or"} if self.has_two else {})}
            for end, way in ways.items():
                local = f"local.get ${name}{end}"
                lines.append(f"{local} {local} {local} {shuffle} {way} local.set ${name}{end}")
        for end in "lh" if self.has_two else "l":
            local = f"local.get ${name}{end}"
            lines.append(f"{local} {local} {_FIRST} local.set ${name}{end}")
        return "\n".join((*lines, self.four(name)))
