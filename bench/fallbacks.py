"""What FallbackManager's operations cost within limits: time, as a ratio to the plain way.

    .venv/bin/python -m bench.fallbacks [TIER ...]

Each operation runs at once, within 60, 30 and 10 percent of the bytes that it held so, and within
a quarter of the multiply-adds of its longest dispatch, each of these once in turn. A row has the
peak that the driver counted, or what a refusal names, and two ratios: the median of what each
round's wall time is to the plain way's in that round, and the same of CPU time.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from os import getloadavg
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

import bascule
from bascule.compat.fallback.operation_work import Request
from bascule.compat.fallback.operations import operation_named
from bascule.errors import LimitError
from bascule.program.ops import cost_of

RNG = np.random.default_rng(0)
# A Safari whose table asks for no fallback: only the budget does.
BROWSER = {"name": "safari", "version": "26.0"}
SHARES = (0.6, 0.3, 0.1)
RUNS = 9
Case = tuple[str, str, dict[str, Any], dict[str, Any]]


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def cases() -> list[Case]:
    """Label, operation, inputs and context."""
    attention = dict(zip(("query", "key", "value"), normal(3, 4, 512, 64), strict=True))
    heads = dict(zip(("query", "key", "value"), normal(3, 2, 256, 512), strict=True))
    caches = ("key_cache", "value_cache", "key", "value")
    cache = dict(zip(caches, (*normal(2, 4096, 16, 32), *normal(2, 4, 16, 32)), strict=True))
    full = dict(zip(caches, normal(4, 2048, 16, 32), strict=True))
    product = {"a": normal(1024, 512), "b": normal(512, 1024)}
    table = {"ids": RNG.integers(0, 65536, (8, 64)), "table": normal(65536, 64)}
    image = {"image": normal(4, 224, 224, 3), "weight": normal(192, 16, 16, 3)}
    return [
        ("attention", "attention_compute", attention, {}),
        ("causal attention", "attention_compute", attention, {"causal": True}),
        ("multi-head attention", "multi_head_attention", heads, {"heads": 8}),
        ("matmul", "matmul", product, {}),
        ("large weight", "matmul", {"a": normal(16, 2048), "b": normal(2048, 2048)}, {}),
        ("4-bit matmul", "matmul_4bit", product, {}),
        ("embedding", "embedding_lookup", table, {}),
        ("KV cache, 4 new rows", "kv_cache_update", cache, {"position": 9}),
        ("KV cache, all rows new", "kv_cache_update", full, {"position": 9}),
        ("quantize", "quantize", {"tensor": normal(4096, 512)}, {}),
        ("features", "feature_extraction", image, {}),
    ]


class Contestant:
    """One way to run a case; the first run compiles and counts its peak."""

    def __init__(self, device: bascule.Device, case: Case, limit: dict[str, Any]) -> None:
        _, *self._case = case
        config = {"device": device, **limit}
        self.manager = bascule.FallbackManager(BROWSER, config=config, memory_threshold=1.0)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, *, timed: bool = True) -> None:
        began = perf_counter(), process_time()
        self.manager.run_with_fallback(*self._case)
        if timed:
            self.wall.append(perf_counter() - began[0])
            self.cpu.append(process_time() - began[1])

    @property
    def peak(self) -> int:
        [memory] = self.manager.get_performance_metrics()["memory_usage"].values()
        return memory["peak_nbytes"]


def max_work(case: Case) -> int:
    """Multiply-adds of the longest dispatch of the plain way."""
    _, operation, inputs, context = case
    known = operation_named(operation, "bench")
    program = known.record(Request(known, inputs, context)).program
    return max((cost_of(call).multiply_adds for call in program.calls), default=0)


def ratio(some: list[float], plain: list[float]) -> float:
    return median(a / b for a, b in zip(some, plain, strict=True))


def measure(device: bascule.Device, case: Case) -> None:
    """Print a case's rows."""
    with ExitStack() as stack:
        plain = Contestant(device, case, {})
        stack.enter_context(plain.manager)
        plain.run(timed=False)
        limits = [{"memory_budget_nbytes": int(share * plain.peak)} for share in SHARES]
        if work := max_work(case):
            limits.append({"dispatch_work": work // 4})
        ways: list[tuple[dict[str, int], Contestant | None, str]] = []
        for limit in limits:
            way = Contestant(device, case, limit)
            stack.enter_context(way.manager)
            try:
                way.run(timed=False)
                ways.append((limit, way, ""))
            except LimitError as error:
                ways.append((limit, None, error.needs))
        for _ in range(RUNS):
            plain.run()
            for _, way, _ in ways:
                if way is not None:
                    way.run()
        spent = f"{1e3 * median(plain.wall):.1f} ms, CPU {1e3 * median(plain.cpu):.1f} ms"
        print(f"{case[0]:24}{'':>16}{plain.peak:>12,}  {spent}")
        for limit, way, refused in ways:
            ((name, maximum),) = limit.items()
            bound = f"{maximum:,} {'B' if name == 'memory_budget_nbytes' else 'MA'}"
            if way is None:
                print(f"{'':20}{bound:>20}  refused: {refused}", flush=True)
                continue
            taken = ", ".join(f"{each.strategy} {each.parts}" for each in way.manager.last_applied)
            wall, cpu = ratio(way.wall, plain.wall), ratio(way.cpu, plain.cpu)
            print(
                f"{'':20}{bound:>20}{way.peak:>12,}{wall:>7.2f}x{cpu:>7.2f}x  {taken}", flush=True
            )


def main(tiers: list[str]) -> None:
    for tier in tiers:
        device = bascule.sync(bascule.open_device(tier))
        print(f"{device!r}, load {getloadavg()[0]:.1f}")
        print(f"{'operation':24}{'bound':>16}{'peak':>12}{'wall':>8}{'CPU':>8}")
        for case in cases():
            measure(device, case)
        device.close()


if __name__ == "__main__":
    main(sys.argv[1:] or ["webgpu"])
