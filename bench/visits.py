"""Visits to pages as bench/loading.py measured them, and the tables made of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

VISITS = ("first", "second")
PEER = "transformers.js wasm"  # what its documentation starts with
console = Console(width=120)


@dataclass(frozen=True)
class Visit:
    """What one opening of a page took."""

    browser: str
    name: str
    visit: str
    round: int
    first_ms: float
    stages: dict[str, float]
    nbytes: dict[str, int]
    peak_nbytes: int | None = None  # above the empty browser, all its processes


@dataclass
class Contest:
    """All visits, and what did not run."""

    reference: Any
    visits: list[Visit] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, browser: str, name: str, visit: str, *, timed: bool = True) -> list[Visit]:
        asked = (browser, name, visit)
        return [
            v
            for v in self.visits
            if (v.browser, v.name, v.visit) == asked and bool(v.round) == timed
        ]

    def median(self, browser: str, name: str, visit: str) -> float:
        return statistics.median(v.first_ms for v in self.of(browser, name, visit))

    def ratio(self, browser: str, name: str, other: str, visit: str) -> float:
        """Median over the rounds: both ran in each, so a machine that drifts drifts for both."""
        pairs = zip(self.of(browser, name, visit), self.of(browser, other, visit), strict=True)
        return statistics.median(a.first_ms / b.first_ms for a, b in pairs)

    def names(self, browser: str) -> list[str]:
        return list(dict.fromkeys(v.name for v in self.visits if v.browser == browser and v.round))


def show(contest: Contest, browsers: list[str]) -> None:
    table = Table(title="From the start of the navigation to the first embedding (medians)")
    for column in ("browser", "contestant", "visit"):
        table.add_column(column)
    for column in ("ms", "ratio to tf.js wasm", "MB received", "MB of weights", "peak MB"):
        table.add_column(column, justify="right")
    for browser in browsers:
        names = contest.names(browser)
        for which in ((browser, name, visit) for name in names for visit in VISITS):
            ms, nbytes = contest.median(*which), contest.of(*which)[-1].nbytes
            ratio = contest.ratio(browser, which[1], PEER, which[2]) if PEER in names else 0
            peak = contest.of(*which, timed=False)[0].peak_nbytes or 0
            table.add_row(
                *which,
                f"{ms:,.0f}",
                f"{ratio:.2f}" if ratio else "",
                f"{sum(nbytes.values()) / 1e6:.1f}",
                f"{nbytes.get('weights', 0) / 1e6:.1f}",
                f"{peak / 1e6:,.0f}",
            )
        table.add_section()
    console.print(table)
    for browser in browsers:
        console.print(stage_table(contest, browser))


def stage_table(contest: Contest, browser: str) -> Table:
    """Our page's own statistics, whatever they are."""
    ours = [name for name in contest.names(browser) if name.startswith("bascule")]
    columns = [(name, visit) for name in ours for visit in VISITS]
    stages = {c: medians([v.stages for v in contest.of(browser, *c)]) for c in columns}
    table = Table("stage", title=f"Stages in {browser} (median ms; some hold others)")
    for column in columns:
        table.add_column(", ".join(column), justify="right")
    for key in dict.fromkeys(key for told in stages.values() for key in told):
        values = (told.get(key) for told in stages.values())
        table.add_row(key, *("" if v is None else f"{v:,.0f}" for v in values))
    return table


def medians(told: list[dict[str, float]]) -> dict[str, float]:
    """Of each key; a stage that a visit did not have counts as nothing there."""
    keys = dict.fromkeys(key for one in told for key in one)
    return {key: statistics.median([one.get(key, 0.0) for one in told]) for key in keys}


def ratios(contest: Contest, browser: str) -> dict[str, dict[str, float]]:
    """Ours over theirs, by visit; below 1 ours is sooner."""
    names = contest.names(browser)
    ours = [name for name in names if name.startswith("bascule")]
    return {
        visit: {
            f"{a} / {b}": contest.ratio(browser, a, b, visit)
            for a in ours
            for b in names
            if b not in ours
        }
        for visit in VISITS
    }
