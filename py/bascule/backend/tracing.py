"""A trace of passes: each dispatch's operands and results, compared with the numpy reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bascule.backend.reference import FUNCTIONS, evaluate
from bascule.base.arrays import Array, np
from bascule.program.ops import operands_of
from bascule.program.program import Call, Dim, Sizes, Value

# Relative to the RMS of the expected numbers: float16 in a tile is off by at most 6e-4.
TOLERANCE = 2e-3
# Half a unit in the last place of float16, for results that are stored in it.
_F16_ROUNDING = 2.0**-10

# wrong: the kernel deviates from numpy on the same operands; not finite: NaN arises here, also in
# numpy, so the numbers are at fault and not the kernel.
Fault = Literal["wrong", "not finite"]


@dataclass(frozen=True, slots=True)
class TracedKernel:
    """The kernel of a dispatch: file, entry point, linked text, bindings and constants."""

    file: str
    entry: str
    variant: str
    digest: str
    wgsl: str
    bindings: str
    constants: Mapping[str, float]
    params: Mapping[str, str]
    workgroups: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """How a value after a dispatch is wrong.

    `index` is the first wrong element, row-major and per axis; `expected` and `got` are its
    numbers. `n_wrong` of `n_elements` are wrong, and the worst is off by `deviation`, relative to
    the expected numbers' RMS (inf if it is not finite).
    """

    fault: Fault
    value: str
    index: tuple[int, ...]
    expected: float
    got: float
    n_wrong: int
    n_elements: int
    deviation: float
    not_finite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One dispatch of a pass; `index` counts over all traced passes.

    `call` has the run's sizes instead of Dims. `inputs` by operand name and `outputs` by value name
    are numpy arrays, None once the trace's memory is used up (parameters are never copied).
    `deviation` is the worst of its outputs. `seconds` is None if the dispatch was not timed.
    """

    index: int
    program: str
    call: Call
    kernel: TracedKernel
    deviation: float
    difference: Difference | None
    inputs: Mapping[str, Array] | None
    outputs: Mapping[str, Array] | None
    seconds: float | None = None


@dataclass
class Tracer:
    """Collects the dispatches of the next `passes` passes; `keep_nbytes` of arrays are kept."""

    passes: int = 1
    keep_nbytes: int = 64 << 20
    calls: list[TracedCall] = field(default_factory=list[TracedCall])
    timed_by: str = ""
    n_passes: int = 0
    kept_nbytes: int = 0

    @property
    def wants_more(self) -> bool:
        """Whether another pass is to be traced."""
        return self.n_passes < self.passes

    def add(
        self, program: str, step: Step, kernel: TracedKernel, results: Mapping[str, Array]
    ) -> None:
        """Compare the outputs of a dispatch, by value name, with numpy."""
        call = step.call
        expected = step.expected(results)
        before = {value.name: step.values[value.name] for _, value in operands_of(call)}
        not_finite = tuple(name for name, array in before.items() if _has_nan(array))
        pairs = [(name, array, expected[name]) for name, array in results.items()]
        differences = [compare(*pair, not_finite) for pair in pairs]
        first = next((d for d in differences if d is not None), None)
        worst = max((deviation(array, right) for _, array, right in pairs), default=0.0)
        inputs: dict[str, Array] | None = {
            each.name: before[value.name]
            for each, value in operands_of(call)
            if value.name not in step.parameters
        }
        outputs: dict[str, Array] | None = dict(results)
        nbytes = sum(a.nbytes for a in (*inputs.values(), *outputs.values()))
        if self.kept_nbytes + nbytes > self.keep_nbytes:
            inputs, outputs = None, None
        else:
            self.kept_nbytes += nbytes
        traced = TracedCall(len(self.calls), program, call, kernel, worst, first, inputs, outputs)
        self.calls.append(traced)

    def time(self, first: int, seconds: Sequence[float], timed_by: str) -> None:
        """Set the times of the calls from `first` on, if there are as many."""
        if len(seconds) == len(self.calls) - first:
            self.timed_by = timed_by
            timed = zip(self.calls[first:], seconds, strict=True)
            self.calls[first:] = [replace(call, seconds=each) for call, each in timed]


@dataclass(frozen=True)
class Step:
    """A call at the sizes of a run, with its operands before it by value name."""

    call: Call
    sizes: Sizes
    values: Mapping[str, Any]
    parameters: frozenset[str]

    def expected(self, results: Mapping[str, Array]) -> dict[str, Array]:
        """Compute with numpy each of the given values."""
        values = dict(self.values)
        # numpy changes states in place, and an operand whose memory the result takes over.
        for each, value in operands_of(self.call):
            if each.updated or each.role == "onto":
                values[value.name] = values[value.name].copy()
        with np.errstate(all="ignore"):
            result = evaluate(FUNCTIONS, self.call, values, self.sizes)
        values[self.call.result.name] = result
        return {name: np.asarray(values[name]).reshape(results[name].shape) for name in results}


def at_sizes(call: Call, sizes: Sizes) -> Call:
    """Return the call with a run's sizes in place of its Dims."""

    def fixed(value: Value | None) -> Value | None:
        return None if value is None else replace(value, shape=value.sizes(sizes))

    result = replace(call.result, shape=call.result.sizes(sizes))
    attributes = tuple(
        (name, sizes[value.name] if isinstance(value, Dim) else value)
        for name, value in call.attributes
    )
    return Call(call.op, tuple(map(fixed, call.operands)), result, attributes)


def compare(
    name: str, got: Array, expected: Array, not_finite: tuple[str, ...] = ()
) -> Difference | None:
    """Return the first wrong element, None if all are right; `not_finite` operands hold NaN."""
    wrong, fault = _wrong(got, expected), "wrong"
    if not wrong.any():
        if not _has_nan(got):
            return None
        wrong, fault = np.isnan(got), "not finite"
    at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    index = tuple(int(i) for i in at)
    return Difference(
        "wrong" if fault == "wrong" else "not finite",
        name,
        index,
        float(expected[index]),
        float(got[index]),
        int(np.count_nonzero(wrong)),
        int(wrong.size),
        deviation(got, expected),
        not_finite,
    )


def deviation(got: Array, expected: Array) -> float:
    """Return the largest deviation over all elements, relative to the expected RMS.

    0 if the same elements are not finite; inf if others are not.
    """
    right, mine = expected.astype(np.float64), got.astype(np.float64)
    same = (right == mine) | (np.isnan(right) & np.isnan(mine))
    with np.errstate(all="ignore"):
        off = np.where(same, 0.0, np.abs(mine - right))
    worst = float(np.max(np.where(np.isfinite(off), off, np.inf), initial=0.0))
    return worst / _scale(right)


def _wrong(got: Array, expected: Array) -> Array:
    """Return which elements are wrong; integers must be equal."""
    if got.dtype.kind in "iu":
        return got != expected
    right, mine = expected.astype(np.float64), got.astype(np.float64)
    same = (right == mine) | (np.isnan(right) & np.isnan(mine))
    allowed: Any = TOLERANCE * _scale(right)
    with np.errstate(all="ignore"):
        if got.dtype == np.float16:
            allowed = allowed + _F16_ROUNDING * np.abs(right)
        close = np.abs(mine - right) <= allowed
    return ~(same | (close & np.isfinite(right)))


def _scale(right: Array) -> float:
    """Return the RMS of finite, nonzero elements: empty cache slots do not count."""
    counted = right[np.isfinite(right) & (right != 0)]
    return float(np.sqrt(np.mean(np.square(counted)))) if counted.size else 1.0


def _has_nan(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f" and bool(np.isnan(array).any())
