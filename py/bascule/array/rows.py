"""The table of elementwise operations: WGSL and numpy for each, and its dtypes.

A template's {a}, {b} and {c} are names of values that the generator has made, never a user's text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bascule.base.arrays import np

Result = Literal["same", "bool", "float"]


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `wgsl` has a template for each kind of its operands (b, i, u, f).

    `result`: the operands' common dtype, bool, or float32 if the operands are integers. `parts` are
    the files of shaders/parts that the template for floats calls.
    """

    name: str
    arity: int
    wgsl: Mapping[str, str]
    numpy: Callable[..., Any]
    result: Result = "same"
    parts: tuple[str, ...] = ()


_EXP = ("array_exp",)
_POWER = ("array_exp", "array_power")


def _row(
    name: str,
    wgsl: Mapping[str, str] | str,
    numpy: Callable[..., Any],
    kinds: str = "iuf",
    result: Result = "same",
    parts: tuple[str, ...] = (),
) -> Row:
    templates = dict.fromkeys(kinds, wgsl) if isinstance(wgsl, str) else wgsl
    longest = max(templates.values(), key=len)
    arity = 3 if "{c}" in longest else 2 if "{b}" in longest else 1
    return Row(name, arity, templates, numpy, result, parts)


def _of(name: str) -> Callable[..., Any]:
    """Return the numpy function of that name, looked up when it is called."""

    def call(*operands: Any) -> Any:
        return getattr(np, name)(*operands)

    return call


def _float(name: str, parts: tuple[str, ...], numpy: str = "") -> Row:
    """Return the row of a function of one float that a part computes."""
    return _row(name, {"f": f"{name}_f({{a}})"}, _of(numpy or name), "f", "float", parts)


def _compared(name: str, sign: str, f: str, kinds: str = "iuf") -> Row:
    templates = {**dict.fromkeys(kinds, f"({{a}} {sign} {{b}})"), "f": f}
    return _row(name, templates, _of(name), result="bool")


def _identity(a: Any) -> Any:
    return a


def _where(a: Any, b: Any, condition: Any) -> Any:
    return np.where(condition, a, b)


def _power(a: Any, b: Any) -> Any:
    """Compute numpy's power, and for integers to negative powers the integer part of the result."""
    if b.dtype.kind != "i":
        return np.power(a, b)
    negative = np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b & 1), 0)).astype(a.dtype)
    return np.where(b < 0, negative, np.power(a, np.maximum(b, 0)))


def _philox(at: Any, low: Any, high: Any) -> Any:
    """Compute words of a Philox 4x32 stream; see shaders/parts/array_philox.wgsl."""
    at, low, high = (each.astype(np.uint64) for each in np.broadcast_arrays(at, low, high))
    mask = np.uint64(0xFFFFFFFF)
    words = [at >> np.uint64(2), *(np.zeros_like(at) for _ in range(3))]
    for _ in range(10):
        first = np.uint64(0xD2511F53) * words[0]
        second = np.uint64(0xCD9E8D57) * words[2]
        words = [
            (second >> np.uint64(32)) ^ words[1] ^ low,
            second & mask,
            (first >> np.uint64(32)) ^ words[3] ^ high,
            first & mask,
        ]
        low = (low + np.uint64(0x9E3779B9)) & mask
        high = (high + np.uint64(0xBB67AE85)) & mask
    return np.choose((at & np.uint64(3)).astype(np.intp), words).astype(np.uint32)


def _rounded(name: str) -> Row:
    templates = {"f": f"{name}({{a}})", "i": "{a}", "u": "{a}"}
    return _row(name, templates, lambda a: getattr(np, name)(a) if a.dtype.kind == "f" else a)


_FLAGS = {"i": "false", "u": "false"}

ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        _row("copy", "{a}", _identity, "biuf"),
        _row("where", "select({b}, {a}, {c})", _where, "biuf"),
        _row("philox", {"u": "philox({a}, {b}, {c})"}, _philox, parts=("array_philox",)),
        _row("add", {**dict.fromkeys("iuf", "({a} + {b})"), "b": "({a} || {b})"}, _of("add")),
        _row("subtract", "({a} - {b})", _of("subtract")),
        _row(
            "multiply",
            {**dict.fromkeys("iuf", "({a} * {b})"), "b": "({a} && {b})"},
            _of("multiply"),
        ),
        _row("divide", {"f": "({a} / {b})"}, _of("divide"), result="float"),
        _row(
            "floor_divide",
            {
                "i": "floor_div_i({a}, {b})",
                "u": "floor_div_u({a}, {b})",
                "f": "floor_div_f({a}, {b})",
            },
            _of("floor_divide"),
            parts=("array_float",),
        ),
        _row(
            "remainder",
            {
                "i": "remainder_i({a}, {b})",
                "u": "remainder_u({a}, {b})",
                "f": "remainder_f({a}, {b})",
            },
            _of("remainder"),
            parts=("array_float",),
        ),
        _row(
            "pow",
            {"i": "pow_i({a}, {b})", "u": "pow_u({a}, {b})", "f": "pow_f({a}, {b})"},
            _power,
            parts=_POWER,
        ),
        _row("negative", {"i": "(-{a})", "u": "(0u - {a})", "f": "(-{a})"}, _of("negative")),
        _row("positive", "{a}", _identity, "biuf"),
        _row("abs", {"i": "abs({a})", "u": "{a}", "f": "abs({a})"}, _of("abs")),
        _row("reciprocal", {"f": "(1.0 / {a})"}, _of("reciprocal"), result="float"),
        _row("square", "({a} * {a})", _of("square")),
        _row("sign", {"i": "sign({a})", "u": "min({a}, 1u)", "f": "sign_f({a})"}, _of("sign")),
        _row(
            "maximum", {**dict.fromkeys("iu", "max({a}, {b})"), "f": "max_f({a}, {b})"},
            _of("maximum"),
        ),
        _row(
            "minimum", {**dict.fromkeys("iu", "min({a}, {b})"), "f": "min_f({a}, {b})"},
            _of("minimum"),
        ),
        _rounded("floor"),
        _rounded("ceil"),
        _rounded("trunc"),
        _rounded("round"),
        _compared("equal", "==", "equal_f({a}, {b})", "biu"),
        _compared("not_equal", "!=", "!equal_f({a}, {b})", "biu"),
        _compared("less", "<", "less_f({a}, {b})"),
        _compared("less_equal", "<=", "least_f({a}, {b})"),
        _compared("greater", ">", "less_f({b}, {a})"),
        _compared("greater_equal", ">=", "least_f({b}, {a})"),
        _row("logical_and", {"b": "({a} && {b})"}, _of("logical_and"), result="bool"),
        _row("logical_or", {"b": "({a} || {b})"}, _of("logical_or"), result="bool"),
        _row("logical_xor", {"b": "({a} != {b})"}, _of("logical_xor"), result="bool"),
        _row("logical_not", {"b": "(!{a})"}, _of("logical_not"), result="bool"),
        _row("isnan", {"f": "is_nan({a})", **_FLAGS}, _of("isnan"), result="bool"),
        _row("isinf", {"f": "is_inf({a})", **_FLAGS}, _of("isinf"), result="bool"),
        _row(
            "isfinite", {"f": "is_finite({a})", "i": "true", "u": "true"}, _of("isfinite"),
            result="bool",
        ),
        _row("signbit", {"f": "is_signed({a})"}, _of("signbit"), result="bool"),
        _row("copysign", {"f": "signed_as({a}, {b})"}, _of("copysign"), result="float"),
        _row("nextafter", {"f": "nextafter_f({a}, {b})"}, _of("nextafter"), parts=("array_float",)),
        _row("hypot", {"f": "hypot_f({a}, {b})"}, _of("hypot"), "f", "float", ("array_float",)),
        _row("atan2", {"f": "atan2_f({a}, {b})"}, _of("arctan2"), "f", "float", ("array_trig",)),
        _row("logaddexp", {"f": "logaddexp_f({a}, {b})"}, _of("logaddexp"), "f", "float", _POWER),
        _row(
            "bitwise_and", {**dict.fromkeys("iu", "({a} & {b})"), "b": "({a} && {b})"},
            _of("bitwise_and"),
        ),
        _row(
            "bitwise_or", {**dict.fromkeys("iu", "({a} | {b})"), "b": "({a} || {b})"},
            _of("bitwise_or"),
        ),
        _row(
            "bitwise_xor", {**dict.fromkeys("iu", "({a} ^ {b})"), "b": "({a} != {b})"},
            _of("bitwise_xor"),
        ),
        _row(
            "bitwise_invert", {**dict.fromkeys("iu", "(~{a})"), "b": "(!{a})"}, _of("invert")
        ),
        _row(
            "bitwise_left_shift",
            {"i": "shift_left_i({a}, {b})", "u": "shift_left_u({a}, {b})"},
            _of("left_shift"),
        ),
        _row(
            "bitwise_right_shift",
            {"i": "shift_right_i({a}, {b})", "u": "shift_right_u({a}, {b})"},
            _of("right_shift"),
        ),
        _float("sqrt", _POWER),
        _float("exp", _EXP),
        _float("expm1", _EXP),
        _float("log", _EXP),
        _float("log1p", _EXP),
        _float("log2", _EXP),
        _float("log10", _EXP),
        _float("sinh", _POWER),
        _float("cosh", _POWER),
        _float("tanh", _POWER),
        _float("asinh", _POWER, "arcsinh"),
        _float("acosh", _POWER, "arccosh"),
        _float("atanh", _POWER, "arctanh"),
        _float("sin", ("array_trig",)),
        _float("cos", ("array_trig",)),
        _float("tan", ("array_trig",)),
        _float("atan", ("array_trig",), "arctan"),
        _float("asin", ("array_arc",), "arcsin"),
        _float("acos", ("array_arc",), "arccos"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Combination:
    """A reduction or scan: its identity by kind, and how two values combine."""

    name: str
    identity: Mapping[str, str]
    combine: Mapping[str, str]


_LOWEST = {"i": "(-2147483647 - 1)", "u": "0u", "f": "-infinity()"}
_HIGHEST = {"i": "2147483647", "u": "4294967295u", "f": "infinity()"}

COMBINATIONS: Mapping[str, Combination] = {
    each.name: each
    for each in (
        Combination("sum", {"i": "0", "u": "0u", "f": "0.0"}, dict.fromkeys("iuf", "a + b")),
        Combination("prod", {"i": "1", "u": "1u", "f": "1.0"}, dict.fromkeys("iuf", "a * b")),
        Combination("max", _LOWEST, {"i": "max(a, b)", "u": "max(a, b)", "f": "max_f(a, b)"}),
        Combination("min", _HIGHEST, {"i": "min(a, b)", "u": "min(a, b)", "f": "min_f(a, b)"}),
        Combination("any", {"b": "false"}, {"b": "a || b"}),
        Combination("all", {"b": "true"}, {"b": "a && b"}),
    )
}
