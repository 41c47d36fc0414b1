"""What bench/generation.py found: medians, ratios, and the machine's memory beside them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.generators import Run
from e2e.test_memory import browser_nbytes

COPIED_NBYTES = 256 << 20
console = Console(width=132)


@dataclass
class Contest:
    """All runs, and what did not run. `bytes_per_s` is what copying memory moves."""

    bytes_per_s: float
    file_nbytes: int
    runs: dict[str, list[Run]] = field(default_factory=dict[str, list[Run]])
    one_step: dict[str, list[Run]] = field(default_factory=dict[str, list[Run]])
    grown_nbytes: dict[str, int] = field(default_factory=dict[str, int])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    facts: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def median(self, name: str, rate: Callable[[Run], float]) -> float:
        return statistics.median(rate(run) for run in self.runs[name])

    def ratio(self, name: str, other: str, rate: Callable[[Run], float]) -> float:
        """Median over the rounds: both ran in each, so a machine that drifts drifts for both."""
        pairs = zip(self.runs[name], self.runs[other], strict=True)
        return statistics.median(rate(a) / rate(b) for a, b in pairs)


def bandwidth() -> float:
    """Bytes a second, read and written, that a core each copies; the best of five."""
    cores = os.cpu_count() or 1
    blocks = [np.ones(COPIED_NBYTES // cores, np.uint8) for _ in range(2 * cores)]
    best = float("inf")
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(6):  # the first touches what it writes
            began = time.perf_counter()
            list(pool.map(np.copyto, blocks[:cores], blocks[cores:]))
            best = min(best, time.perf_counter() - began)
    return 2 * COPIED_NBYTES / best


def held_nbytes() -> int:
    """Proportional set size of this process and of all below it."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    own = next(row for row in rollup.splitlines() if row.startswith("Pss:"))
    return browser_nbytes() + 1024 * int(own.split()[1])


def agreement(ours: list[Run], theirs: list[Run]) -> float:
    """Which part of each text, in the mean, is the same up to the first difference."""
    parts: list[float] = []
    for a, b in zip(ours, theirs, strict=True):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(a.text, b.text, strict=False))
        parts.append(len(list(same)) / max(1, len(b.text)))
    return statistics.mean(parts)


def show(contest: Contest, reference: str) -> None:
    weights = contest.facts[reference]["weights_nbytes"]
    floor = contest.bytes_per_s / weights
    table = Table(title="Medians, tokens a second; ratios are to the first row")
    table.add_column("contestant", no_wrap=True)
    columns = ("prefill", "ratio", "decode", "ratio", "of the floor", "first token, ms")
    for column in (*columns, "same text", "grown, MB"):
        table.add_column(column, justify="right")
    for name, runs in contest.runs.items():
        decode = contest.median(name, lambda run: run.decode_tokens_per_s)
        table.add_row(
            name,
            f"{contest.median(name, lambda run: run.prefill_tokens_per_s):.1f}",
            f"{contest.ratio(name, reference, lambda run: run.prefill_tokens_per_s):.2f}",
            f"{decode:.2f}",
            f"{contest.ratio(name, reference, lambda run: run.decode_tokens_per_s):.2f}",
            f"{decode / floor:.1%}",
            f"{contest.median(name, lambda run: run.first_ms):,.0f}",
            f"{agreement(runs, contest.runs[reference]):.0%}",
            f"{contest.grown_nbytes[name] / 1e6:,.0f}",
        )
    console.print(table)
    console.print(
        f"Floor: each token reads {weights / 1e6:.1f} MB of weights (the file has "
        f"{contest.file_nbytes / 1e6:.1f}); copying memory moves {contest.bytes_per_s / 1e9:.1f} "
        f"GB/s, {floor:.0f} tokens/s."
    )
    if contest.one_step:
        console.print(own_table(contest))


def own_table(contest: Contest) -> Table:
    """What only our own statistics tell."""
    table = Table(title="Steps in flight, calls and memory (medians)")
    table.add_column("Bascule", no_wrap=True)
    rates = ("decode, 8 in flight", "1 in flight", "ratio", "calls a token", "with 1 in flight")
    for column in (*rates, "weights, MB", "KV cache, MB", "GPU in all, MB"):
        table.add_column(column, justify="right")
    for name, again in contest.one_step.items():
        runs, facts = contest.runs[name], contest.facts[name]
        pairs = zip(runs, again, strict=True)
        gain = statistics.median(a.decode_tokens_per_s / b.decode_tokens_per_s for a, b in pairs)
        table.add_row(
            name,
            f"{contest.median(name, lambda run: run.decode_tokens_per_s):.2f}",
            f"{statistics.median(run.decode_tokens_per_s for run in again):.2f}",
            f"{gain:.2f}",
            *(f"{calls(made):.2f}" for made in (runs, again)),
            *(f"{facts[key] / 1e6:.1f}" for key in ("weights_nbytes", "cache_nbytes")),
            f"{facts.get('gpu_nbytes', 0) / 1e6:.1f}",
        )
    return table


def calls(runs: list[Run]) -> float:
    """Into JavaScript (natively: into the driver), a new token."""
    return statistics.median(run.stats["crossings_per_token"] for run in runs)


def as_json(contest: Contest) -> dict[str, Any]:
    """Everything, with the rates that follow from each run's times."""

    def told(runs: list[Run]) -> list[dict[str, Any]]:
        names = ("prefill_tokens_per_s", "decode_tokens_per_s")
        return [asdict(run) | {name: getattr(run, name) for name in names} for run in runs]

    return {
        "copied_bytes_per_s": contest.bytes_per_s,
        "file_nbytes": contest.file_nbytes,
        "runs": {name: told(runs) for name, runs in contest.runs.items()},
        "one_step_in_flight": {name: told(runs) for name, runs in contest.one_step.items()},
        "grown_nbytes": contest.grown_nbytes,
        "facts": contest.facts,
        "left_out": contest.left_out,
    }
