"""Time a launch: to choose between variants on one machine, never in a test."""

from __future__ import annotations

from time import perf_counter

from bascule.backend.webgpu.gpu import Gpu
from bascule.kernels.compiled import Launch, RecordedLaunches

_TRIES = 3
_MIN_S = 0.005
_MAX_RUNS = 1024


async def timed(launch: Launch) -> float:
    """Return milliseconds of one launch: the best of three, of as many runs as take 5 ms."""
    gpu = launch.shader.gpu
    recorded = RecordedLaunches(gpu, [launch])
    try:
        runs = 1
        while True:
            best_s = min([await _run_s(gpu, recorded, runs) for _ in range(_TRIES)])
            if best_s >= _MIN_S or runs >= _MAX_RUNS:
                return 1e3 * best_s / runs
            runs *= 4
    finally:
        recorded.close()


async def _run_s(gpu: Gpu, recorded: RecordedLaunches, runs: int) -> float:
    began = perf_counter()
    recorded.run(runs)
    await gpu.done()
    return perf_counter() - began
