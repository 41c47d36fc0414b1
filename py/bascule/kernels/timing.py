"""How long a launch takes: for choosing between variants on one machine, never for a test."""

# pyright: reportPrivateUsage=false
# Kernels work on what buffers keep for themselves.

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from bascule.base.arrays import np
from bascule.kernels.compiled import Launch, RecordedLaunches
from bascule.kernels.operands import Operand

_TRIES = 3
_LEAST_S = 0.005
_MOST_RUNS = 1024


async def timed(launch: Launch, outputs: Sequence[Operand]) -> float:
    """Milliseconds of one launch: the best of three, of as many runs at once as take 5 ms."""
    recorded = RecordedLaunches(launch.shader.gpu, [launch])
    try:
        runs = 1
        while True:
            best_s = min([await _run_s(recorded, runs, outputs) for _ in range(_TRIES)])
            if best_s >= _LEAST_S or runs >= _MOST_RUNS:
                return 1e3 * best_s / runs
            runs *= 4
    finally:
        recorded.close()


async def _run_s(recorded: RecordedLaunches, runs: int, outputs: Sequence[Operand]) -> float:
    began = perf_counter()
    recorded.run(runs)
    for operand in outputs[:1]:  # a read waits for all of it
        await operand.buffer._read(np.empty(4, np.uint8))
    return perf_counter() - began
