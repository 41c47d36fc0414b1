"""What PerformanceMonitor costs: passes of a model with it, without it, and after it.

    .venv/bin/python bench/monitor.py [--tier webgpu] [--texts N] [--rounds N] [--passes N]

Rounds of the three alternate, so that a busy machine slows all of them alike; the medians of their
passes' means are compared, and the medians of the rounds' ratios in CPU time. The bar is 3 % with
it and nothing after it. Of the passes of a round the first 8 have a timestamp around each dispatch,
and later ones now and then: "first" is what those 8 cost.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median
from time import perf_counter, process_time

import bascule
from bascule import EmbeddingModel, PerformanceMonitor
from bascule.backend.webgpu.profile_native import ALL_TIMED_RUNS

SENTENCE = "A bascule bridge has a counterweight that balances a span through its upward swing."


async def measure(tier: str, n_texts: int, rounds: int, passes: int) -> dict[str, float]:
    texts = [SENTENCE] * n_texts
    results: dict[str, list[float]] = {"without": [], "first": [], "with": [], "after": []}
    pairs: dict[str, list[float]] = {"first": [], "with": []}
    async with await bascule.load("all-MiniLM-L6-v2", tier=tier) as model:
        assert isinstance(model, EmbeddingModel)

        async def run(count: int) -> tuple[float, float]:
            began, worked = perf_counter(), process_time()
            for _ in range(count):
                await model.embed(texts)
            return 1e3 * (perf_counter() - began), 1e3 * (process_time() - worked)

        await run(1)
        for _ in range(rounds):
            plain, plain_cpu = await run(passes)
            results["without"].append(plain / passes)
            async with PerformanceMonitor(model) as monitor:
                first, first_cpu = await run(ALL_TIMED_RUNS)
                rest, rest_cpu = await run(passes - ALL_TIMED_RUNS)
            results["first"].append(first / ALL_TIMED_RUNS)
            results["with"].append((first + rest) / passes)
            results["after"].append((await run(passes))[0] / passes)
            pairs["first"].append(first_cpu / ALL_TIMED_RUNS / plain_cpu * passes)
            pairs["with"].append((first_cpu + rest_cpu) / plain_cpu)
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
