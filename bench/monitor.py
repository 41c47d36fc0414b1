"""What PerformanceMonitor costs: passes of a model with it, without it, and after it.

    .venv/bin/python bench/monitor.py [--tier webgpu] [--texts N] [--rounds N] [--passes N]

Rounds of the three alternate, so that a busy machine slows all of them alike; the medians of their
passes' means are compared, and the medians of the rounds' ratios in CPU time. The bar is 3 % with
it and nothing after it. Of the passes of a round the first has a timestamp around each dispatch,
and then each eighth: "timed" is what that one costs, "first" the first 8 together.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time

import bascule
from bascule import EmbeddingModel, PerformanceMonitor
from bascule.backend.webgpu.profile_native import TIMED_EACH

SENTENCE = "A bascule bridge has a counterweight that balances a span through its upward swing."


PARTS = ("timed", "first", "with")


@dataclass(frozen=True, slots=True)
class Times:
    """Of so many passes, in seconds."""

    passes: int
    wall_s: float
    cpu_s: float

    @property
    def ms(self) -> float:
        return 1e3 * self.wall_s / self.passes

    @property
    def cpu_ms(self) -> float:
        return 1e3 * self.cpu_s / self.passes

    def __add__(self, other: Times) -> Times:
        wall_s, cpu_s = self.wall_s + other.wall_s, self.cpu_s + other.cpu_s
        return Times(self.passes + other.passes, wall_s, cpu_s)


async def measure(tier: str, n_texts: int, rounds: int, passes: int) -> dict[str, float]:
    texts = [SENTENCE] * n_texts
    results: dict[str, list[float]] = {name: [] for name in ("without", *PARTS, "after")}
    pairs: dict[str, list[float]] = {name: [] for name in PARTS}
    async with await bascule.load("all-MiniLM-L6-v2", tier=tier) as model:
        assert isinstance(model, EmbeddingModel)

        async def run(count: int) -> Times:
            began, worked = perf_counter(), process_time()
            for _ in range(count):
                await model.embed(texts)
            return Times(count, perf_counter() - began, process_time() - worked)

        await run(1)
        for _ in range(rounds):
            plain = await run(passes)
            results["without"].append(plain.ms)
            async with PerformanceMonitor(model) as monitor:
                timed = await run(1)
                first = timed + await run(TIMED_EACH - 1)
                whole = first + await run(passes - TIMED_EACH)
            results["after"].append((await run(passes)).ms)
            for name, times in zip(PARTS, (timed, first, whole), strict=True):
                results[name].append(times.ms)
                pairs[name].append(times.cpu_ms / plain.cpu_ms)
        report = monitor.report
        assert report is not None
        for name, ratios in pairs.items():
            print(f"{name:8} {median(ratios):6.3f} x in CPU time, by pairs")
        print(f"{len(report.work)} kernels timed by {report.timed_by} on {report.device}")
    return {name: median(times) for name, times in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="webgpu")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=100)
    asked = parser.parse_args()
    result = asyncio.run(measure(asked.tier, asked.texts, asked.rounds, asked.passes))
    for name, ms in result.items():
        print(f"{name:8} {ms:9.2f} ms  {ms / result['without']:6.3f} x")


if __name__ == "__main__":
    main()
