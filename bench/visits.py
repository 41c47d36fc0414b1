"""Visits to pages as bench/loading.py measured them, and the tables made of them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

VISITS = ("first", "second")
MAIN = "bascule auto"  # what a visitor gets
PEER = "transformers.js wasm"  # what its documentation starts with
CHAT_PAGE = "bascule chat auto"
# At most so many times the peer's time, by visit.
BARS = {"first": 1.3, "second": 1.0}
# In the order in which a visit goes through them. What has none of these names lies beside them.
STAGES = (
    "page_ms",  # until the worker is created, and what no other stage covers
    "worker_ms",
    "boot_library_ms",
    "boot_fetch_ms",  # the snapshot; Pyodide's own script runs meanwhile
    "boot_start_ms",
    "package_ms",
    "config_ms",
    "tokenizer_ms",
    "programs_ms",
    "device_ms",
    "weights_ms",
    "prepare_ms",
    "prove_ms",
    "first_pass_ms",  # from the model's being ready to the first result
)
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


@dataclass(frozen=True)
class Reference:
    """What every contestant has to give."""

    embedding: Any
    answer: str


@dataclass(frozen=True)
class Held:
    """A ratio beside its bar."""

    browser: str
    visit: str
    ratio: float
    bar: float
    met: bool


@dataclass
class Contest:
    """All visits, and what did not run."""

    reference: Reference
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
    table = Table(
        title="From the start of the navigation to the first embedding or token (medians)"
    )
    for column in ("browser", "contestant", "visit"):
        table.add_column(column)
    for column in ("ms", "ratio to tf.js wasm", "MB received", "MB of weights", "peak MB"):
        table.add_column(column, justify="right")
    for browser in browsers:
        names = contest.names(browser)
        for which in ((browser, name, visit) for name in names for visit in VISITS):
            ms, nbytes = contest.median(*which), contest.of(*which)[-1].nbytes
            compared = PEER in names and which[1] != CHAT_PAGE
            ratio = contest.ratio(browser, which[1], PEER, which[2]) if compared else 0
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
        for row in held(contest, browser):
            verdict = "met" if row.met else "not met"
            console.print(
                f"{browser}, {row.visit} visit: {row.ratio:.2f} times {PEER}"
                f" (bar: at most {row.bar}): {verdict}"
            )


def held(contest: Contest, browser: str) -> list[Held]:
    """Each visit's ratio to the peer beside its bar; none where one of the two did not run."""
    if not {MAIN, PEER} <= {*contest.names(browser)}:
        return []
    results = {visit: contest.ratio(browser, MAIN, PEER, visit) for visit in VISITS}
    return [Held(browser, v, results[v], BARS[v], results[v] <= BARS[v]) for v in VISITS]


def markdown(contest: Contest, browsers: list[str]) -> list[str]:
    """Lines of the table in bench/README.md."""
    lines = [
        "| | page | visit | ours, ms | transformers.js, ms | ratio | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    for browser in browsers:
        for row in held(contest, browser):
            ours, theirs = (contest.median(browser, n, row.visit) for n in (MAIN, PEER))
            cells = [browser, "sentences", row.visit, f"{ours:,.0f}", f"{theirs:,.0f}"]
            lines.append(f"| {' | '.join(cells)} | {row.ratio:.2f} | {row.bar} |")
        if CHAT_PAGE in contest.names(browser):
            for visit in VISITS:
                ours = contest.median(browser, CHAT_PAGE, visit)
                lines.append(f"| {browser} | chat | {visit} | {ours:,.0f} | | | |")
    return lines


def stages_of(found: dict[str, Any]) -> dict[str, float]:
    """A visit's stages in milliseconds, and the rest of the page's statistics of that unit."""
    stats = {k: v for k, v in found["stats"].items() if k.endswith("_ms")}
    covered = sum(
        stats.get(name, 0.0) for name in ("worker_ms", "boot_ms", "package_ms", "load_ms")
    )
    stats |= {"page_ms": found["ready"] - covered, "first_pass_ms": found["first"] - found["ready"]}
    return {name: stats[name] for name in sorted(stats, key=_place)}


def _place(name: str) -> int:
    return STAGES.index(name) if name in STAGES else len(STAGES)


def stages(contest: Contest, browser: str) -> dict[str, dict[str, float]]:
    """The medians of our visits' stages, by contestant and visit."""
    ours = [name for name in contest.names(browser) if name.startswith("bascule")]
    return {
        f"{name}, {visit}": medians([v.stages for v in contest.of(browser, name, visit)])
        for name in ours
        for visit in VISITS
    }


def stage_table(contest: Contest, browser: str) -> Table:
    """Where our page's time goes; below a line, figures that these hold."""
    result = stages(contest, browser)
    table = Table("stage", title=f"Stages in {browser} (median ms)")
    for column in result:
        table.add_column(column, justify="right")
    names = list(dict.fromkeys(name for output in result.values() for name in output))
    for name in sorted(names, key=_place):
        values = (output.get(name) for output in result.values())
        row = (name, *("" if v is None else f"{v:,.0f}" for v in values))
        table.add_row(*row, end_section=name == STAGES[-1])
    return table


def medians(told: list[dict[str, float]]) -> dict[str, float]:
    """Of each key; a stage that a visit did not have counts as nothing there."""
    keys = dict.fromkeys(key for one in told for key in one)
    return {key: statistics.median([one.get(key, 0.0) for one in told]) for key in keys}


def ratios(contest: Contest, browser: str) -> dict[str, dict[str, float]]:
    """Ours over theirs, by visit; below 1 ours is sooner."""
    names = [name for name in contest.names(browser) if name != CHAT_PAGE]
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
