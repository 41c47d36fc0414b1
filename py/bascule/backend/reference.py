"""Every op in numpy: the living definition of the op set, and the CPU tier.

The functions compute in the dtype they are given: float64 when a test wants a yardstick, float32
on the CPU tier. Shapes as in `program/ops.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import Tier, TuneReport, WeightStore, checked_input
from bascule.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.program.program import Call, Parameter, Program
    from bascule.progress import ProgressCallback

Array = np.ndarray[Any, np.dtype[Any]]


def embedding(
    ids: Array, table: Array, position: Array | None = None, bias: Array | None = None
) -> Array:
    """y[b,t] = table[ids[b,t]] + position[t] + bias. An id past the table takes its last row."""
    y = table[np.minimum(ids, len(table) - 1)]
    if position is not None:
        y = y + position[: ids.shape[1]]
    return y if bias is None else y + bias


def linear(
    x: Array, weight: Array, bias: Array | None = None, *, activation: str = "none"
) -> Array:
    """y = activation(x @ weight.T + bias)."""
    # One flat product: numpy hands a 2-d one to BLAS whole, an n-d one matrix by matrix.
    y = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], len(weight))
    if bias is not None:
        y += bias
    return activate(y, kind=activation)


def layer_norm(
    x: Array, weight: Array, bias: Array, residual: Array | None = None, *, eps: float
) -> Array:
    """Normalise over the last axis, then scale and shift (Ba et al. 2016)."""
    s = x if residual is None else x + residual
    centred = s - s.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def attention(qkv: Array, lengths: Array, *, heads: int) -> Array:
    """Bidirectional attention (Vaswani et al. 2017) over the first lengths[b] keys of each row.

    qkv (B, T, 3*C) holds q, k and v side by side. A length of 0 counts as 1, so that every row
    has something to attend to.
    """
    batch, tokens, packed = qkv.shape
    size = packed // 3 // heads
    q, k, v = qkv.reshape(batch, tokens, 3, heads, size).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(qkv.dtype.type(size))
    hidden = np.arange(tokens)[None, :] >= np.maximum(lengths, 1)[:, None]
    scores = np.where(hidden[:, None, None, :], -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, packed // 3)


def pool(x: Array, lengths: Array, *, kind: str) -> Array:
    """Mean over the first lengths[b] tokens (at least one), or token 0."""
    if kind == "cls":
        return x[:, 0].copy()
    count = np.maximum(lengths, 1)[:, None]
    kept = np.arange(x.shape[1])[None, :] < count
    return np.where(kept[:, :, None], x, 0).sum(axis=1, dtype=x.dtype) / count.astype(x.dtype)


def l2_normalise(x: Array, *, eps: float) -> Array:
    """y = x / max(|x|, eps) over the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), x.dtype.type(eps))


def activate(x: Array, *, kind: str) -> Array:
    """none, gelu (exact, Hendrycks & Gimpel 2016), relu, tanh or silu."""
    match kind:
        case "gelu":
            return x * (0.5 + 0.5 * _erf(x * x.dtype.type(0.5**0.5)))
        case "relu":
            return np.maximum(x, 0)
        case "tanh":
            return np.tanh(x)
        case "silu":
            c = np.maximum(x, -80)  # below, exp overflows float32 and the value is 0
            return c / (1 + np.exp(-c))
        case _:
            return x


def add(x: Array, y: Array) -> Array:
    """x + y, y repeated over x's leading axes."""
    return x + y


def _erf(x: Array) -> Array:
    """The error function: in float64 by its series and continued fraction, in float32 by a fit."""
    return _erf_exact(x) if x.dtype == np.float64 else _erf_fit(x)


def _erf_fit(x: Array) -> Array:
    """Within 2e-7 in float32: a polynomial under 1, where the other formula would cancel.

    From 1 on Abramowitz & Stegun 1964, 7.1.26; under 1 a Chebyshev fit of erf(x) / x in x^2.
    """
    s = np.minimum(x * x, 1)
    near = np.full_like(x, -0.00056541059)
    for c in (0.00492327753, -0.02671638504, 0.11280364543, -0.37612348795, 1.12837910652):
        near = near * s + np.float32(c)
    t = 1 / (1 + 0.3275911 * np.abs(x))
    p = 1.061405429
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + c
    return np.where(np.abs(x) < 1, x * near, np.sign(x) * (1 - p * t * np.exp(-x * x)))


def _erf_exact(x: Array) -> Array:
    """By the standard library, value by value: slow, and only ever a yardstick."""
    from math import erf

    return np.array([erf(v) for v in x.ravel().tolist()], dtype=x.dtype).reshape(x.shape)


FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (embedding, linear, layer_norm, attention, pool, l2_normalise, activate, add)
}


class ReferenceStore:
    """Weights as float32 numpy arrays."""

    page_bridge = None
    arrivals: Arrivals | None = None

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.arrays = {p.name: np.empty(p.shape, np.float32) for p in parameters}
        self.targets = {p.name: index for index, p in enumerate(parameters)}
        self.nbytes = sum(p.nbytes for p in parameters)
        self._views = [memoryview(self.arrays[p.name]).cast("B") for p in parameters]

    def write(self, target: int, offset: int, data: Buffer) -> None:
        """See `WeightStore.write`."""
        view = memoryview(data).cast("B")
        self._views[target][offset : offset + view.nbytes] = view

    def close(self) -> None:
        """See `WeightStore.close`."""
        self._views.clear()
        self.arrays.clear()


class ReferenceExecutable:
    """A program run call by call; a value is dropped after its last use."""

    def __init__(self, program: Program, weights: ReferenceStore) -> None:
        self._program = program
        self._weights = weights
        arrays = weights.arrays
        self.host_s = 0.0
        last: dict[str, int] = {}
        for index, call in enumerate(program.calls):
            last |= {o.name: index for o in call.operands if o is not None}
        kept = {v.name for v in program.outputs} | arrays.keys()
        self._dead: list[list[str]] = [[] for _ in program.calls]
        for name, index in last.items():
            if name not in kept:
                self._dead[index].append(name)

    async def run(self, sizes: Mapping[str, int], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Executable.run`."""
        started = perf_counter()
        values: dict[str, Array] = dict(self._weights.arrays)
        for value in self._program.inputs:
            values[value.name] = checked_input(value, sizes, inputs)
        for call, dead in zip(self._program.calls, self._dead, strict=True):
            if self._weights.arrivals is not None:
                names = {o.name for o in call.operands if o is not None}
                await self._weights.arrivals.wait(names & self._weights.arrays.keys())
            values[call.result.name] = _evaluate(call, values)
            for name in dead:
                del values[name]
            # The tier never waits for a device: let others have a turn between two calls.
            await asyncio.sleep(0)
        self.host_s += perf_counter() - started
        return {v.name: values[v.name] for v in self._program.outputs}

    def close(self) -> None:
        """See `Executable.close`."""


class ReferenceBackend:
    """The CPU tier: numpy, natively and in the page."""

    tier: Tier = "cpu"
    device_name = f"numpy {np.__version__}"
    lost = ""

    def store(self, parameters: Sequence[Parameter]) -> ReferenceStore:
        """See `Backend.store`."""
        return ReferenceStore(parameters)

    async def prepare(self, program: Program, weights: WeightStore) -> ReferenceExecutable:
        """See `Backend.prepare`."""
        if not isinstance(weights, ReferenceStore):
            raise InputError("prepare", "weights of this backend", type(weights).__name__)
        return ReferenceExecutable(program, weights)

    @property
    def stats(self) -> Mapping[str, float]:
        """See `Backend.stats`: it counts nothing."""
        return {}

    async def tune(
        self,
        programs: Iterable[Program],
        *,
        budget_s: float,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """See `Backend.tune`: there is one way only."""
        del programs, budget_s, progress
        return TuneReport()

    async def warm(self, programs: Iterable[Program], name: str = "") -> int:
        """See `Backend.warm`: there is nothing to compile."""
        return 0

    def close(self) -> None:
        """See `Backend.close`."""


def _evaluate(call: Call, values: Mapping[str, Array]) -> Array:
    operands = [None if o is None else values[o.name] for o in call.operands]
    return FUNCTIONS[call.op](*operands, **dict(call.attributes))
