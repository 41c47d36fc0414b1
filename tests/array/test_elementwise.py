"""Every row of the table against numpy: random shapes, dtypes, strides, NaN and infinity."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array.rows import ROWS

FLOATS = ["float32", "float16"]
WHOLE = ["int8", "int16", "int32", "uint8", "uint16", "uint32"]
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30, 65504.0, 3.0]
# Where one rounding is not all there is: units in the last place of float32 that are allowed,
# against float64. Two of a whole quotient below 2**22 are less than 1, so it must be exact; above
# that numpy's own float32 may be one off.
ULPS = {
    "acos": 4, "acosh": 6, "asin": 4, "asinh": 6, "atan": 3, "atan2": 5, "atanh": 6, "cos": 2,
    "cosh": 6, "divide": 3, "exp": 3, "expm1": 6, "floor_divide": 2, "hypot": 4, "log": 3,
    "log10": 4, "log1p": 4, "log2": 3, "logaddexp": 4, "pow": 64, "reciprocal": 3, "sin": 2,
    "sinh": 6, "sqrt": 3, "tan": 6, "tanh": 4,
}  # fmt: skip
# Zeros between which a relative error says nothing.
ABSOLUTE = {"sin": 2e-7, "cos": 2e-7, "log": 1e-7, "log2": 1e-7, "log10": 1e-7, "logaddexp": 2e-6}
NOT_PUBLIC = ("copy", "where", "philox")


def cases() -> list[tuple[str, str]]:
    results: list[tuple[str, str]] = []
    for name, row in ROWS.items():
        if name not in NOT_PUBLIC:
            kinds = row.wgsl.keys()
            names = [n for n in ["bool", *WHOLE, *FLOATS] if np.dtype(n).kind in kinds]
            results += [(name, n) for n in names if (name, n) != ("nextafter", "float16")]
    return results


def numbers(rng: np.random.Generator, dtype: str, n: int) -> Any:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.integers(0, 2, n).astype(bool)
    if kind in "iu":
        limits = np.iinfo(dtype)
        result = rng.integers(limits.min, limits.max, n, dtype=np.int64, endpoint=True)
        result[: n // 2] = rng.integers(max(limits.min, -5), 9, n // 2)
        result[:3] = limits.min, limits.max, 0
        return result.astype(dtype)
    with np.errstate(over="ignore"):
        result = (rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype)
        result[: len(EDGES)] = np.array(EDGES).astype(dtype)
    return result


@pytest.mark.parametrize("name", sorted({name for name, _ in cases()}))
def test_as_numpy(tier: str, rng: np.random.Generator, name: str) -> None:
    row = ROWS[name]
    for dtype in [d for n, d in cases() if n == name]:
        n = len(EDGES) ** 2
        first = numbers(rng, dtype, n)
        second = numbers(rng, dtype, n)
        if np.dtype(dtype).kind == "f":  # every edge beside every edge
            with np.errstate(over="ignore"):
                edges = np.array(EDGES).astype(dtype)
            first[: n // 2] = np.repeat(edges, len(EDGES))[: n // 2]
            second[: n // 2] = np.tile(edges, len(EDGES))[: n // 2]
        operands = [first, second][: row.arity]
        result = np.asarray(getattr(xp, name)(*map(xp.asarray, operands)))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            wide = [o.astype(np.float64) if o.dtype.kind == "f" else o for o in operands]
            expected = expected_of(name, operands if name in SAME else wide)
        check(name, dtype, result, expected, operands)


# Their result depends on the type of the operands, not on their value alone.
SAME = ("nextafter", "signbit", "copysign")


def expected_of(name: str, operands: list[Any]) -> Any:
    row = ROWS[name]
    if row.result == "float" and operands[0].dtype.kind in "biu":
        operands = [o.astype(np.float64) for o in operands]
    return row.numpy(*operands)


def check(name: str, dtype: str, found: Any, expected: Any, operands: list[Any]) -> None:
    result = f"{name} of {dtype}"
    if found.dtype.kind != "f":
        wrong = found != expected.astype(found.dtype)
        assert not wrong.any(), (result, [o[wrong][:4] for o in operands], found[wrong][:4])
        return
    with np.errstate(all="ignore"):
        expected = expected.astype(found.dtype)
    nan = np.isnan(expected)
    assert (np.isnan(found) == nan).all(), (
        result,
        [o[np.isnan(found) != nan][:4] for o in operands],
    )
    limits = np.finfo(found.dtype)
    ulps = ULPS.get(name, 1) if found.dtype == np.float32 else 1 + ULPS.get(name, 0) // 32
    with np.errstate(all="ignore"):
        # WGSL may take subnormal numbers for 0, and overflow within the tolerance of infinity.
        low = float(limits.smallest_normal) * 2
        error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        allowed = ulps * float(limits.eps) * np.abs(expected.astype(np.float64)) + low
        allowed += ABSOLUTE.get(name, 0.0)
        same = (found == expected) | nan | (error <= allowed)
        almost = np.isinf(expected) & (np.abs(found) > float(limits.max) * (1 - 1e-5))
    wrong = ~(same | almost)
    assert not wrong.any(), (
        result, [o[wrong][:4] for o in operands], found[wrong][:4], expected[wrong][:4],
    )  # fmt: skip
