"""The command line's drawings: a progress bar on stderr, tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unicodedata import category

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from bascule.backend.tuning import TuneReport
from bascule.base.arrays import np
from bascule.base.numbers import three_digits
from bascule.base.progress import Progress, ProgressCallback
from bascule.cache import CachedItem
from bascule.tasks.classifications import Classification, Ranked

_LONGEST = 48
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
_SHOWN_ELSEWHERE = ("limits", "versions", "problems", "build")


def _console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return Rich's console without markup: texts and names are the user's own."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def _plain(text: str) -> str:
    """Return the text in one line: control characters, newlines and lone surrogates are escaped."""
    return "".join(repr(c)[1:-1] if category(c) in _ESCAPED else c for c in text)


def _cut(text: str) -> str:
    """Return at most `_LONGEST` characters of a text, in one line."""
    shown = _plain(text[: _LONGEST + 1])
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


@contextmanager
def progress_bar() -> Generator[ProgressCallback]:
    """Yield a progress callback: a bar per stage, drawn only if stderr is a terminal."""
    console = _console(stderr=True)
    stage = TextColumn("{task.description:<12}", markup=False)
    columns = (stage, BarColumn(), TextColumn("{task.fields[count]}", markup=False))
    with Bars(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as bars:
        tasks: dict[str, Any] = {}

        def notify(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=None, count="")
            bars.update(
                tasks[progress.stage],
                completed=progress.done,
                total=progress.total or None,
                count=_counted(progress),
            )

        yield notify


def _counted(progress: Progress) -> str:
    if progress.unit != "bytes":
        return f"{progress.done}/{progress.total} {progress.unit}"
    return f"{progress.done / 1e6:.1f}/{progress.total / 1e6:.1f} MB"


def similarity_table(texts: Sequence[str], embeddings: np.ndarray[Any, Any], where: str) -> None:
    """Cosine similarities of all pairs."""
    table = Table(title=f"{len(texts)} texts, {embeddings.shape[1]} numbers each, {where}")
    table.add_column("#", justify="right")
    table.add_column("text")
    for index in range(len(texts)):
        table.add_column(str(index + 1), justify="right")
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(norms, 1e-12)
    for index, row in enumerate(unit @ unit.T):
        table.add_row(str(index + 1), _cut(texts[index]), *(f"{score:.3f}" for score in row))
    _console().print(table)


def ranking_table(texts: Sequence[str], best: Sequence[Ranked], where: str) -> None:
    """The best texts with their scores."""
    table = Table("score", "text", title=f"{len(texts)} texts, {where}")
    for each in best:
        table.add_row(f"{each.score:.4f}", _cut(texts[each.index]))
    _console().print(table)


def classes_table(texts: Sequence[str], classes: Sequence[Classification], where: str) -> None:
    """Each text's most probable label."""
    table = Table("label", "probability", "text", title=f"{len(texts)} texts, {where}")
    for text, each in zip(texts, classes, strict=True):
        table.add_row(_cut(each.label), f"{each.probability:.4f}", _cut(text))
    _console().print(table)


def tuning_table(report: TuneReport, device_name: str) -> None:
    """What a tuning measured, the largest gains first."""
    table = Table(title=f"Tuning on {device_name}")
    for name in ("calls like this", "calls", "chosen", "ms", "before", "ms before", "gain"):
        table.add_column(name, justify="right" if "ms" in name or name == "calls" else "left")
    for result in sorted(report.findings, key=lambda f: -f.gain):
        table.add_row(
            Text(result.signature),
            str(result.count),
            result.chosen,
            f"{result.times[result.chosen]:.3f}",
            result.default if result.chosen != result.default else "the same",
            f"{result.times[result.default]:.3f}",
            f"{result.gain:.2f}",
        )
    console = _console()
    if report.findings:
        console.print(table)
    caption = f"{len(report.findings)} kinds of calls measured in {report.spent_s:.1f} s, "
    caption += f"{report.improved} of them faster than before; {report.known} were known already"
    caption += f"; {len(report.skipped)} did not fit the budget." if report.skipped else "."
    console.print(caption)
    for wrong in report.wrong:
        console.print(Text(f"Gave wrong numbers here, never used: {wrong}"))


def cache_table(models: Sequence[CachedItem]) -> None:
    """What is cached, for people."""
    table = Table("location", "kind", "kept", "of", "used", title="Cached models")
    for each in models:
        used = "now" if each.in_use else time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used))
        stored, total = (f"{n / 1e6:.1f} MB" for n in (each.stored_nbytes, each.nbytes))
        table.add_row(_plain(each.location), each.kind, stored, total, used)
    # A location is to be copied: in a file or a pipe it is never truncated.
    console = _console(width=None if sys.stdout.isatty() else 240)
    console.print(table if models else "Nothing is cached yet.")


def doctor_table(report: Mapping[str, Any]) -> None:
    """The doctor's report for people."""
    console = _console()
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    console.print(Text.assemble(("Versions", "bold"), f"  {versions}"))
    tiers = Table("tier", "works", "device", "reason", title="Tiers")
    for row in report["tiers"]:
        tiers.add_row(row["tier"], "yes" if row["works"] else "no", row["device"], row["reason"])
    console.print(tiers)
    _decisions_table(console, report["decisions"])
    if report["warning"]:
        console.print(Text.assemble(("Warning:", "bold"), f" {report['warning']}"))
    for adapter in report["adapters"]:
        table = Table("fact", "value", title=f"Adapter: {adapter['name']}", show_header=False)
        kind = "on the CPU: slow but correct" if adapter["software"] else "hardware"
        table.add_row("kind", kind)
        table.add_row("backend", adapter["backend"])
        table.add_row("features", ", ".join(adapter["features"]) or "none of those used")
        wrong = ", ".join(adapter["wrong_kernels"])
        table.add_row("kernels rejected for wrong numbers", wrong or "none so far")
        for name, value in adapter["limits"].items():
            table.add_row(name, f"{value:,}")
        console.print(table)
    console.print(_capability_table(report["capabilities"]))
    folders = Table("folder", "path", "size", title="Folders")
    for row in report["folders"]:
        size = f"{row['nbytes'] / 1e6:.1f} MB" if row["exists"] else "not there yet"
        folders.add_row(row["name"], row["path"], size)
    console.print(folders)


def _capability_table(record: Mapping[str, Any]) -> Table:
    """What is known, everything missing with its reason, then the names of unknown fields."""
    table = Table("capability", "found", title="Capabilities", show_header=False)
    problems: Mapping[str, str] = record["problems"]
    shown = {name: value for name, value in record.items() if name not in _SHOWN_ELSEWHERE}
    for name, value in shown.items():
        if value is not None:
            why = f": {problems[name]}" if not value and name in problems else ""
            table.add_row(name.removesuffix("_nbytes"), Text(_shown(name, value) + why))
    for name, why in problems.items():
        if shown.get(name) is None:
            table.add_row(name, Text(f"no: {why}"))
    table.add_row("unknown", ", ".join(n for n, value in shown.items() if value is None) or "none")
    return table


def _shown(name: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_nbytes"):
            return f"{value / 1e9:.1f} GB"
        case list():
            return ", ".join(cast("list[str]", value)) or "none"
        case _:
            return str(value)


def _decisions_table(console: Console, decisions: Sequence[Mapping[str, Any]]) -> None:
    """Which tier would do which work here, and the expected times."""
    able = [c["tier"] for c in decisions[0]["considered"] if not c["refused"]] if decisions else []
    table = Table("work", "goes to", *(f"{tier}, ms" for tier in able), title="Decisions")
    for decision in decisions:
        times = {c["tier"]: c["expected_ms"] for c in decision["considered"]}
        row = ("-" if times[t] is None else three_digits(times[t]) for t in able)
        table.add_row(decision["subject"], decision["chosen"] or "nothing", *row)
    console.print(table)
