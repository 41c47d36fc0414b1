"""Loops of WebAssembly that reduce what a chain of operations gives, along rows or down columns.

Sums and products of floats are taken in doubles: as fast here as in floats, whose next addition
waits for the last one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bascule.array.dtypes import Kind, kind_of
from bascule.array.loops import NEXT, ON, ROWS_BEGIN, ROWS_END, LoopText, place_of
from bascule.array.wasm_rows import STORES

# How two lanes combine, and what changes nothing; floats' sums and products are `_WIDE`.
_COMBINED: Mapping[tuple[str, Kind], tuple[str, str]] = {
    ("sum", "i"): ("i32x4.add", "i32x4.const 0"),
    ("sum", "u"): ("i32x4.add", "i32x4.const 0"),
    ("prod", "i"): ("i32x4.mul", "i32x4.const 1"),
    ("prod", "u"): ("i32x4.mul", "i32x4.const 1"),
    ("max", "i"): ("i32x4.max_s", "i32x4.const 0x80000000"),
    ("max", "u"): ("i32x4.max_u", "i32x4.const 0"),
    ("max", "f"): ("f32x4.max", "i32x4.const 0xff800000"),
    ("min", "i"): ("i32x4.min_s", "i32x4.const 0x7fffffff"),
    ("min", "u"): ("i32x4.min_u", "i32x4.const 0xffffffff"),
    ("min", "f"): ("f32x4.min", "i32x4.const 0x7f800000"),
    ("any", "b"): ("v128.or", "i32x4.const 0"),
    ("all", "b"): ("v128.and", "i32x4.const 0xffffffff"),
}
_WIDE: Mapping[str, tuple[str, int]] = {"sum": ("add", 0), "prod": ("mul", 1)}
_UPPER = "i8x16.shuffle 8 9 10 11 12 13 14 15 8 9 10 11 12 13 14 15"
_SECOND = "i8x16.shuffle 4 5 6 7 4 5 6 7 4 5 6 7 4 5 6 7"
_FOUR_FLOATS = "i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23"
_STORE_LANE = {1: "i32.store8 0", 2: "i32.store16 0", 4: "i32.store 0"}
# Lanes of the last step that no step before it has had.
_FRESH = """
v128.const 0 1 2 3
local.get $at local.get $columns i32.sub i32.const 4 i32.add i32x4.splat
i32x4.ge_s local.set $fresh
local.get $columns i32.const 4 i32.sub local.set $at
"""


@dataclass(slots=True, kw_only=True)
class ReducingLoopText(LoopText):
    """Writes `run(params)` for a chain and a reduction of its last value.

    `along_rows`: each row becomes one number; else the rows become one.
    """

    combination: str
    along_rows: bool

    def _whole(self) -> str:
        self._locals |= dict.fromkeys(("low", "high", "fresh"), "v128")
        lines = [*self._params(), *(self._rows() if self.along_rows else self._columns())]
        return "\n".join(lines)

    def _rows(self) -> list[str]:
        masked = f"local.get {self._result} {self._nothing} local.get $fresh v128.bitselect"
        return [
            *ROWS_BEGIN, *self._held(), self._begun, "i32.const 0 local.set $at",
            "block loop",
            "local.get $at i32.const 4 i32.add local.get $columns i32.gt_s br_if 1",
            *self._computed(), self._combined, ON,
            "end end",
            "local.get $at local.get $columns i32.ne if", _FRESH,
            *self._computed(), f"{masked} local.set {self._result}", self._combined,
            "end",
            self._stored_number, *self._next_row(), *ROWS_END,
        ]  # fmt: skip

    def _columns(self) -> list[str]:
        pointers = [f"row{at + 1}" for at in range(len(self.operands))]
        self._locals |= dict.fromkeys((*pointers, "all"), "i32")
        reset = [f"local.get $address{n[3:]} local.set ${n}" for n in pointers]
        store = STORES[self._dtype(self._last).name].format(a=self._four)
        return [
            "local.get $rows local.set $all i32.const 0 local.set $at",
            "block loop", NEXT,
            "local.get $all local.set $rows", *reset, self._begun,
            *ROWS_BEGIN, *self._held("row"), *self._computed("row"), self._combined,
            *self._next_row("row", 1), *ROWS_END,
            f"{place_of('address0', self._dtype(self._last))} {store}", ON,
            "end end",
        ]  # fmt: skip

    @property
    def _is_wide(self) -> bool:
        return self._dtype(self._last).kind == "f" and self.combination in _WIDE

    @property
    def _nothing(self) -> str:
        """Lanes that change no result."""
        if self._is_wide:
            return f"f32x4.const {_WIDE[self.combination][1]}"
        return self._lanes[1]

    @property
    def _lanes(self) -> tuple[str, str]:
        return _COMBINED[self.combination, kind_of(self._dtype(self._last))]

    @property
    def _begun(self) -> str:
        if self._is_wide:
            start = f"f64x2.const {_WIDE[self.combination][1]}"
            return f"{start} local.set $low {start} local.set $high"
        return f"{self._lanes[1]} local.set $low"

    @property
    def _combined(self) -> str:
        """Take the last value into the accumulators: all four lanes, or two and two doubles."""
        value = f"local.get {self._result}"
        if self._is_wide:
            combine = f"f64x2.{_WIDE[self.combination][0]}"
            upper = f"{value} {value} {_UPPER} f64x2.promote_low_f32x4"
            return (
                f"local.get $low {value} f64x2.promote_low_f32x4 {combine} local.set $low\n"
                f"local.get $high {upper} {combine} local.set $high"
            )
        return f"local.get $low {value} {self._lanes[0]} local.set $low"

    @property
    def _four(self) -> str:
        """The accumulators as four numbers."""
        if self._is_wide:
            low, high = (f"local.get ${n} f32x4.demote_f64x2_zero" for n in ("low", "high"))
            return f"{low} {high} {_FOUR_FLOATS}"
        return "local.get $low"

    @property
    def _stored_number(self) -> str:
        """Combine the lanes and store the one number."""
        store = "local.get $address0 local.get $low"
        if self._is_wide:
            combine = _WIDE[self.combination][0]
            both = f"local.get $low local.get $high f64x2.{combine} local.set $low"
            lanes = "f64x2.extract_lane 0 local.get $low f64x2.extract_lane 1"
            return f"{both}\n{store} {lanes} f64.{combine} f32.demote_f64 f32.store 0"
        lines = [
            f"local.get $low {'local.get $low ' * 2} {shuffle} {self._lanes[0]} local.set $low"
            for shuffle in (_UPPER, _SECOND)
        ]
        dtype = self._dtype(self._last)
        one = "i32.const 1 i32.and" if dtype.kind == "b" else ""
        lines.append(f"{store} i32x4.extract_lane 0 {one} {_STORE_LANE[dtype.itemsize]}")
        return "\n".join(lines)
