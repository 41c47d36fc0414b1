"""The rows of `rows.ROWS` in WebAssembly: instructions on four lanes, by operands' kind.

A template's {a}, {b} and {c} push an operand. A value of kind b is a mask (all bits of a lane or
none), i and u are 32-bit integers, f a float32. numpy computes operations that are missing here,
such as integer division.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bascule.array.dtypes import Kind

if TYPE_CHECKING:
    from bascule.array.dtypes import DType

_AB = "{a} {b} "
_SIGN = "i32x4.const 0x80000000"
_INFINITY = "i32x4.const 0x7f800000"


def _compared(name: str) -> Mapping[str, str]:
    signs = {"f": f"f32x4.{name}", "i": f"i32x4.{name}_s", "u": f"i32x4.{name}_u"}
    return {kind: _AB + sign for kind, sign in signs.items()}


def _rounded(name: str) -> Mapping[str, str]:
    return {"f": f"{{a}} f32x4.{name}", "i": "{a}", "u": "{a}"}


def _part(name: str, n_inputs: int = 1) -> Mapping[str, str]:
    """Return a function of floats in web/wasm/parts."""
    return {"f": f"{_AB if n_inputs == 2 else '{a} '}call ${name}"}


def _both(instruction: str) -> Mapping[str, str]:
    return {"i": _AB + f"i32x4.{instruction}_s", "u": _AB + f"i32x4.{instruction}_u"}


def _same_for(text: str, kinds: str = "iu") -> Mapping[str, str]:
    return dict.fromkeys(kinds, text)


_EQUAL = {**_same_for(_AB + "i32x4.eq", "biu"), "f": _AB + "f32x4.eq"}
_NOT = "{a} v128.not"
# The sum of 1 if positive and -1 if negative: a mask is -1.
_SIGN_F = (
    "{a} {a} f32x4.const 0 f32x4.gt f32x4.const 1 v128.and "
    "{a} f32x4.const 0 f32x4.lt f32x4.const 1 v128.and f32x4.sub "
    "{a} {a} f32x4.ne v128.bitselect"
)
_SIGN_I = "{a} i32x4.const 0 i32x4.lt_s {a} i32x4.const 0 i32x4.gt_s i32x4.sub"

TEMPLATES: Mapping[str, Mapping[str, str]] = {
    "copy": _same_for("{a}", "biuf"),
    "positive": _same_for("{a}", "biuf"),
    "where": _same_for("{a} {b} {c} v128.bitselect", "biuf"),
    "philox": {"u": "{a} {b} {c} call $philox"},
    "add": {"f": _AB + "f32x4.add", "b": _AB + "v128.or", **_same_for(_AB + "i32x4.add")},
    "subtract": {"f": _AB + "f32x4.sub", **_same_for(_AB + "i32x4.sub")},
    "multiply": {"f": _AB + "f32x4.mul", "b": _AB + "v128.and", **_same_for(_AB + "i32x4.mul")},
    "divide": {"f": _AB + "f32x4.div"},
    "pow": _part("pow_f", 2),
    "negative": {"f": "{a} f32x4.neg", **_same_for("{a} i32x4.neg")},
    "abs": {"f": "{a} f32x4.abs", "i": "{a} i32x4.abs", "u": "{a}"},
    "reciprocal": {"f": "f32x4.const 1 {a} f32x4.div"},
    "square": {"f": "{a} {a} f32x4.mul", **_same_for("{a} {a} i32x4.mul")},
    "sign": {"f": _SIGN_F, "i": _SIGN_I, "u": "{a} i32x4.const 1 i32x4.min_u"},
    "maximum": {"f": _AB + "f32x4.max", **_both("max")},
    "minimum": {"f": _AB + "f32x4.min", **_both("min")},
    "floor": _rounded("floor"),
    "ceil": _rounded("ceil"),
    "trunc": _rounded("trunc"),
    "round": _rounded("nearest"),
    "equal": _EQUAL,
    "not_equal": {**_same_for(_AB + "i32x4.ne", "biu"), "f": _AB + "f32x4.ne"},
    "less": _compared("lt"),
    "less_equal": _compared("le"),
    "greater": _compared("gt"),
    "greater_equal": _compared("ge"),
    "logical_and": {"b": _AB + "v128.and"},
    "logical_or": {"b": _AB + "v128.or"},
    "logical_xor": {"b": _AB + "v128.xor"},
    "logical_not": {"b": _NOT},
    "isnan": {"f": "{a} {a} f32x4.ne", **_same_for("i32x4.const 0")},
    "isinf": {"f": f"{{a}} f32x4.abs {_INFINITY} f32x4.eq", **_same_for("i32x4.const 0")},
    "isfinite": {"f": f"{{a}} f32x4.abs {_INFINITY} f32x4.lt", **_same_for("i32x4.const -1")},
    "signbit": {"f": "{a} i32.const 31 i32x4.shr_s"},
    "copysign": {"f": f"{{b}} {{a}} {_SIGN} v128.bitselect"},
    "hypot": _part("hypot_f", 2),
    "atan2": _part("atan2_f", 2),
    "logaddexp": _part("logaddexp_f", 2),
    "bitwise_and": _same_for(_AB + "v128.and", "biu"),
    "bitwise_or": _same_for(_AB + "v128.or", "biu"),
    "bitwise_xor": _same_for(_AB + "v128.xor", "biu"),
    # By a number that all lanes share: see `loops.is_loopable`.
    "bitwise_left_shift": _same_for("{a} {b} i32x4.extract_lane 0 i32x4.shl"),
    "bitwise_right_shift": {
        "i": "{a} {b} i32x4.extract_lane 0 i32x4.shr_s",
        "u": "{a} {b} i32x4.extract_lane 0 i32x4.shr_u",
    },
    "bitwise_invert": _same_for(_NOT, "biu"),
    "sqrt": {"f": "{a} f32x4.sqrt"},
    **{
        name: _part(f"{name}_f")
        for name in (
            "exp", "expm1", "log", "log1p", "log2", "log10", "sinh", "cosh", "tanh", "asinh",
            "acosh", "atanh", "sin", "cos", "tan", "atan", "asin", "acos",
        )
    },
}  # fmt: skip

# Conversions by kinds; a missing one needs no instruction.
CASTS: Mapping[tuple[Kind, Kind], str] = {
    ("b", "i"): "{a} i32x4.const 1 v128.and",
    ("b", "u"): "{a} i32x4.const 1 v128.and",
    ("b", "f"): "{a} f32x4.const 1 v128.and",
    ("i", "b"): "{a} i32x4.const 0 i32x4.ne",
    ("u", "b"): "{a} i32x4.const 0 i32x4.ne",
    ("f", "b"): "{a} f32x4.const 0 f32x4.ne",
    ("i", "f"): "{a} f32x4.convert_i32x4_s",
    ("u", "f"): "{a} f32x4.convert_i32x4_u",
    ("f", "i"): "{a} i32x4.trunc_sat_f32x4_s",
    ("f", "u"): "{a} i32x4.trunc_sat_f32x4_u {a} i32x4.trunc_sat_f32x4_s "
    "{a} f32x4.const 0 f32x4.ge v128.bitselect",
}

_NARROW_SIGNED = "i32.const {n} i32x4.shl i32.const {n} i32x4.shr_s"
# Wraps a result to the range of a type that is narrower than its lane.
NARROWED: Mapping[str, str] = {
    "int8": _NARROW_SIGNED.format(n=24),
    "int16": _NARROW_SIGNED.format(n=16),
    "uint8": "i32x4.const 255 v128.and",
    "uint16": "i32x4.const 65535 v128.and",
}
# Results that are one of the operands.
EXACT = ("copy", "positive", "where", "maximum", "minimum")

_TRUTH = " i32x4.const 0 i32x4.ne"
_BYTES = "i16x8.extend_low_i8x16_{0} i32x4.extend_low_i16x8_{0}"
# Four elements from an address and an offset {o}; one element, in every lane; four elements to an
# address.
LOADS: Mapping[str, str] = {
    **dict.fromkeys(("float32", "int32", "uint32"), "v128.load {o}"),
    "int16": "v128.load16x4_s {o}",
    "uint16": "v128.load16x4_u {o}",
    "int8": "v128.load32_zero {o} " + _BYTES.format("s"),
    "uint8": "v128.load32_zero {o} " + _BYTES.format("u"),
    "bool": "v128.load32_zero {o} " + _BYTES.format("u") + _TRUTH,
}
SPLATS: Mapping[str, str] = {
    **dict.fromkeys(("float32", "int32", "uint32"), "v128.load32_splat 0"),
    "int16": "i32.load16_s 0 i32x4.splat",
    "uint16": "i32.load16_u 0 i32x4.splat",
    "int8": "i32.load8_s 0 i32x4.splat",
    "uint8": "i32.load8_u 0 i32x4.splat",
    "bool": "i32.load8_u 0 i32x4.splat" + _TRUTH,
}
_ONES = "{a} i32x4.const 1 v128.and"
_PACKED_8 = "i8x16.shuffle 0 4 8 12 0 4 8 12 0 4 8 12 0 4 8 12 v128.store32_lane {o} 0"
_PACKED_16 = "i8x16.shuffle 0 1 4 5 8 9 12 13 0 1 4 5 8 9 12 13 v128.store64_lane {o} 0"
STORES: Mapping[str, str] = {
    **dict.fromkeys(("float32", "int32", "uint32"), "{a} v128.store {o}"),
    **dict.fromkeys(("int16", "uint16"), "{a} {a} " + _PACKED_16),
    **dict.fromkeys(("int8", "uint8"), "{a} {a} " + _PACKED_8),
    "bool": f"{_ONES} {_ONES} {_PACKED_8}",
}
# Only the first element.
STORES_ONE: Mapping[str, str] = {
    **dict.fromkeys(("float32", "int32", "uint32"), "{a} i32x4.extract_lane 0 i32.store 0"),
    **dict.fromkeys(("int16", "uint16"), "{a} i32x4.extract_lane 0 i32.store16 0"),
    **dict.fromkeys(("int8", "uint8"), "{a} i32x4.extract_lane 0 i32.store8 0"),
    "bool": f"{_ONES} i32x4.extract_lane 0 i32.store8 0",
}


def has_lanes(dtype: DType) -> bool:
    """Whether elements of a dtype fit 32-bit lanes unchanged: all but float16."""
    return dtype.kind != "f" or dtype.itemsize == 4  # numpy takes long to make a dtype's name
