"""The small programs that measure a tier: their data, and the check of their results.

They work without numpy, so that a page can measure its tiers before it has fetched it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import cos, isfinite, prod, sin
from struct import pack
from typing import Any

from bascule.backend.base import shaped
from bascule.choosing.speeds import Kind
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program

# Tolerance of float32 sums of up to 1024 products of numbers around 1.
_TOLERANCE = 1e-3
# This many numbers of a result are compared, spread over rows and columns.
_N_CHECKED = 64
# Periods of the data: primes, so that no two rows of a sample are equal.
_X = array("f", map(sin, range(251)))
_W = array("f", map(cos, range(257)))
# A Q4_0 block: a float16 scale, here 1/8, and 32 numbers of four bits, -8 to 7.
_SCALE = 1 / 8
_BLOCK_NBYTES, _BLOCK_N = 18, 32


def work_of(kind: Kind, n: int) -> int:
    """Return the work of a sample of size n."""
    return {"product": n**3, "pass": n, "blocks": n * n}[kind]


@dataclass(frozen=True, slots=True)
class MeasuredProgram:
    """A frozen program with its inputs by name, and the bytes of its weight "w", if it has one."""

    kind: Kind
    n: int
    program: Program
    inputs: Mapping[str, memoryview[Any]]
    weight: memoryview[Any] | None

    @property
    def n_results(self) -> int:
        """Return the number of float32 results."""
        return prod(self.program.outputs[0].limits)

    def fault(self, numbers: memoryview[float] | array[float]) -> str:
        """Return what is wrong with a result; empty if it is right."""
        expected = dict(self._expected())
        scale = max(1.0, *map(abs, expected.values()))
        errors = [abs(numbers[index] - right) for index, right in expected.items()]
        if all(isfinite(error) and error <= _TOLERANCE * scale for error in errors):
            return ""
        worst = max(errors, key=lambda error: error if isfinite(error) else float("inf"))
        return f"a wrong {self.kind} of {len(numbers):,} numbers (off by {worst})"

    def _expected(self) -> Iterator[tuple[int, float]]:
        """Yield correct numbers, each with its index in the result."""
        x = memoryview(self.inputs["x"]).cast("B").cast("f")
        step = max(1, self.n_results // _N_CHECKED) | 1
        for index in range(0, self.n_results, step):
            if self.kind == "pass":
                yield index, 2 * x[index]
                continue
            row, column = divmod(index, self.n)
            values = x[row * self.n : (row + 1) * self.n]
            yield index, sum(a * b for a, b in zip(values, self._weights(column), strict=True))

    def _weights(self, row: int) -> Iterator[float]:
        """Yield a row of the weight."""
        assert self.weight is not None
        if self.kind == "product":
            yield from self.weight.cast("B").cast("f")[row * self.n : (row + 1) * self.n]
            return
        nbytes = self.n // _BLOCK_N * _BLOCK_NBYTES
        data = self.weight[row * nbytes : (row + 1) * nbytes]
        for at in range(2, nbytes, _BLOCK_NBYTES):
            packed = data[at : at + _BLOCK_N // 2]
            yield from (_SCALE * ((byte & 15) - 8) for byte in packed)
            yield from (_SCALE * ((byte >> 4) - 8) for byte in packed)


def measured_program(kind: Kind, n: int) -> MeasuredProgram:
    """Return the program of a sample of size n."""
    graph = Graph(f"{kind} {n}")
    if kind == "pass":
        graph.output(graph.call("add", graph.input("x", (n,)), graph.input("y", (n,))))
        x = _repeated(_X, (n,))
        return MeasuredProgram(kind, n, freeze(graph), {"x": x, "y": x}, None)
    rows, dtype = (1, "q4_0") if kind == "blocks" else (n, "f32")
    x = graph.input("x", (rows, n))
    weight = graph.parameter("w", (n, n), dtype=dtype)
    graph.output(graph.call("linear", x, weight, activation="none"))
    data = _blocks(n) if kind == "blocks" else _repeated(_W, (n, n))
    return MeasuredProgram(kind, n, freeze(graph), {"x": _repeated(_X, (rows, n))}, data)


def _repeated(numbers: array[float], shape: tuple[int, ...]) -> memoryview[Any]:
    count = prod(shape)
    return shaped((numbers * (count // len(numbers) + 1))[:count], "f32", shape)


def _blocks(n: int) -> memoryview[Any]:
    """Return the bytes of a Q4_0 matrix (n, n) with values from -1 to 7/8."""
    count = n * n // _BLOCK_N
    pattern = bytes(range(251))
    data = bytearray(pattern * (count * _BLOCK_NBYTES // len(pattern) + 1))
    del data[count * _BLOCK_NBYTES :]
    low, high = pack("<e", _SCALE)
    data[0::_BLOCK_NBYTES] = bytes([low]) * count
    data[1::_BLOCK_NBYTES] = bytes([high]) * count
    return memoryview(data)
