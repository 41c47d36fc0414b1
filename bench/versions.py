"""Speed of two versions of Bascule, natively on each tier, in turns: ratios of medians.

    .venv/bin/python bench/versions.py BEFORE [AFTER] [--tiers cpu,wasm,webgpu] [--rounds 12]

BEFORE and AFTER are checkouts (`git worktree add`); AFTER is by default the one that this file is
in. Each version runs in a process of its own with this Python and its packages, and a folder of its
own for what is remembered. In each round both do the same work, the other one first every time.
MiniLM embeds a text and 16 texts; SmolLM2 reads 128 tokens and writes 16. Both models must be there
(`bascule pull`). A ratio above 1 says that AFTER is faster. On a machine that others use the ratio
of CPU time, of all threads of a process, says more than that of the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [f"Sentence {n} says that a bridge opens when the tall ship comes." for n in range(16)]
PROMPT, NEW_TOKENS = [7 + n % 400 for n in range(128)], 16


async def _embeddings(bascule: Any, tier: str) -> Mapping[str, Any]:
    model = await bascule.load("all-MiniLM-L6-v2", tier=tier)
    return {
        "MiniLM, 1 text": lambda: model.embed(TEXTS[:1]),
        "MiniLM, 16 texts": lambda: model.embed(TEXTS),
    }


async def _generations(bascule: Any, tier: str) -> Mapping[str, Any]:
    model = await bascule.load("SmolLM2-135M-Instruct", tier=tier)
    count = 0

    async def generate(n_tokens: int) -> None:
        nonlocal count
        count += 1  # each prompt begins in its own way, so that no cache has its beginning
        await model.generate([500 + count, *PROMPT], max_new_tokens=n_tokens)

    return {
        "SmolLM2, prompt of 129": lambda: generate(1),
        f"SmolLM2, the same and {NEW_TOKENS} tokens": lambda: generate(NEW_TOKENS),
    }


async def _work(tier: str) -> None:
    """Serve in a process of its own: a name a line comes in, its seconds go out."""
    import bascule

    runs = {**await _embeddings(bascule, tier), **await _generations(bascule, tier)}
    print(json.dumps(list(runs)), flush=True)
    for line in sys.stdin:
        began, worked = perf_counter(), process_time()
        await runs[line.strip()]()
        print(json.dumps([perf_counter() - began, process_time() - worked]), flush=True)


def environment_of(checkout: Path, folder: str) -> dict[str, str]:
    """Of a process that runs a checkout's version, which remembers in a folder of its own."""
    return {**os.environ, "PYTHONPATH": str(checkout / "py"), "BASCULE_REMEMBERED": folder}


class Version:
    """A checkout at work on a tier."""

    def __init__(self, checkout: Path, tier: str, folder: str) -> None:
        # OpenBLAS's threads would spin while they wait.
        environment = {**environment_of(checkout, folder), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--work", tier]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names: list[str] = self._answer()

    def seconds(self, name: str) -> tuple[float, float]:
        """Do that work once: the clock's seconds, and the CPU's."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        wall_s, cpu_s = self._answer()
        return wall_s, cpu_s

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A version has ended; its error stands above.")
        return json.loads(line)


def _compare(before: Path, after: Path, tier: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        versions = [Version(before, tier, first), Version(after, tier, second)]
        for name in versions[0].names:
            times: list[list[tuple[float, float]]] = [[], []]
            for number in range(-2, rounds):  # two rounds that warm up
                for which in (0, 1) if number % 2 else (1, 0):
                    seconds = versions[which].seconds(name)
                    if number >= 0:
                        times[which].append(seconds)
            (wall, cpu), (wall_after, cpu_after) = (
                map(median, zip(*t, strict=True)) for t in times
            )
            pairs = sorted(a[1] / b[1] for a, b in zip(*times, strict=True))
            quarter = len(pairs) // 4
            print(
                f"| {tier} | {name} | {1e3 * wall:.1f} | {1e3 * wall_after:.1f} "
                f"| {wall / wall_after:.3f} | {cpu / cpu_after:.3f} "
                f"| {pairs[quarter]:.2f} to {pairs[-1 - quarter]:.2f} |",
                flush=True,
            )
        for version in versions:
            version.close()


def main() -> None:
    """Print a table: medians, their ratio, that of CPU time, the middle half of its pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--tiers", default="cpu,wasm,webgpu")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(_work(options.work))
        return
    before, after = [path.resolve() for path in (*options.checkouts, ROOT)][:2]
    print("| tier | work | before, ms | after, ms | before / after | of CPU time | middle half |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for tier in options.tiers.split(","):
        _compare(before, after, tier, options.rounds)


if __name__ == "__main__":
    main()
