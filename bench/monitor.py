"""What PerformanceMonitor costs: passes of a model with it, without it, and after it.

    .venv/bin/python bench/monitor.py [--tier webgpu] [--texts N] [--rounds N]

Rounds of the three alternate, so that a busy machine slows all of them alike; the medians are
compared. The bar is 3 % with it and nothing after it.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median
from time import perf_counter

import bascule
from bascule import EmbeddingModel, PerformanceMonitor

SENTENCE = "A bascule bridge has a counterweight that balances a span through its upward swing."


async def measure(tier: str, n_texts: int, rounds: int) -> dict[str, float]:
    texts = [SENTENCE] * n_texts
    found: dict[str, list[float]] = {"without": [], "with": [], "after": []}
    async with await bascule.load("all-MiniLM-L6-v2", tier=tier) as model:
        assert isinstance(model, EmbeddingModel)

        async def one(name: str) -> None:
            began = perf_counter()
            await model.embed(texts)
            found[name].append(1e3 * (perf_counter() - began))

        await model.embed(texts)
        for _ in range(rounds):
            await one("without")
            async with PerformanceMonitor(model) as monitor:
                await model.embed(texts)  # the first one takes memory for the timestamps
                await one("with")
            await one("after")
        report = monitor.report
        assert report is not None
        print(f"{len(report.work)} kernels timed by {report.timed_by} on {report.device}")
    return {name: median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="webgpu")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.tier, asked.texts, asked.rounds))
    for name, ms in found.items():
        print(f"{name:8} {ms:9.2f} ms  {ms / found['without']:6.3f} x")


if __name__ == "__main__":
    main()
