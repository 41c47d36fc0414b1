"""Runs cases in a child process, which may be ended, hang or run out of memory."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import multiprocessing as mp
import os
import resource
import shutil
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from time import perf_counter

MAX_S = 10.0
MAX_NBYTES = 300 << 20


@dataclass(slots=True)
class Report:
    """What came of a target's cases."""

    target: str
    seed: int
    n_cases: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    max_nbytes: int = 0
    findings: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        result = (
            f"{self.target}: {self.n_cases:,} cases of seed {self.seed} in {self.seconds:.0f} s"
        )
        worst = f"slowest {self.slowest_s:.1f} s, {self.max_nbytes >> 20} MiB at most"
        return "\n".join([f"{result} ({worst}), {len(self.findings)} findings", *self.findings])


def fuzz(target: str, seed: int, first: int, n_cases: int | None, seconds: float | None) -> Report:
    """Run cases until so many are done or so much time is over; a child that ends is replaced."""
    report = Report(target, seed)
    began = perf_counter()
    until = None if seconds is None else began + seconds
    end = first + (n_cases if n_cases is not None else 200 if until is None else 1 << 60)
    context = mp.get_context("spawn")
    at, done = first, False
    while not done and at < end and (until is None or perf_counter() < until):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(theirs, target, seed, at, end, until))
        child.start()
        theirs.close()
        at, done = _listen(ours, at, report)
        child.join()
        if not done:
            report.findings.append(_told(report, at, f"the process ended ({child.exitcode})"))
            at += 1
    report.n_cases, report.seconds = at - first, perf_counter() - began
    return report


def _told(report: Report, index: int, problem: str) -> str:
    again = f"--seed {report.seed} --first {index} --cases 1 {report.target}"
    return f"  {again}: {problem}"


def _listen(ours: Connection, at: int, report: Report) -> tuple[int, bool]:
    """The case that the child was at, and whether it did all."""
    while True:
        try:
            result = json.loads(ours.recv())
        except EOFError:
            return at, False
        if result is None:
            return at, True
        report.slowest_s = max(report.slowest_s, result["seconds"])
        report.max_nbytes = max(report.max_nbytes, result["nbytes"])
        if result["problem"]:
            report.findings.append(_told(report, at, result["problem"]))
        at += 1


def _child(
    theirs: Connection, target: str, seed: int, first: int, end: int, until: float | None
) -> None:
    from tests.fuzz.targets import TARGETS, use

    _limit_memory()
    home = Path(tempfile.mkdtemp(prefix="bascule-fuzz-"))
    os.environ |= {"BASCULE_REMEMBERED": f"{home}/learned", "BASCULE_WEIGHTS": f"{home}/weights"}
    try:
        for index in range(first, end):
            if until is not None and perf_counter() > until:
                break
            rng = Random(f"{target} {seed} {index}")
            folder = home / "case"
            shutil.rmtree(folder, ignore_errors=True)
            TARGETS[target](folder, rng)
            gc.collect()
            faulthandler.dump_traceback_later(MAX_S, exit=True)
            _reset_peak()
            before, began, problem = _peak_nbytes(), perf_counter(), ""
            try:
                asyncio.run(use(target, folder))
            except BaseException as error:
                problem = _short(error)
            faulthandler.cancel_dump_traceback_later()
            seconds, nbytes = perf_counter() - began, max(0, _peak_nbytes() - before)
            if nbytes > MAX_NBYTES:
                problem = problem or f"it took {nbytes >> 20} MiB"
            theirs.send(json.dumps({"seconds": seconds, "nbytes": nbytes, "problem": problem}))
        theirs.send("null")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _short(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/bascule/" in f.filename] or list(frames)
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {where}: {str(error)[:150]!r}"


def _limit_memory() -> None:
    """What wants gigabytes shall fail, not the machine."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    maximum = pages * resource.getpagesize() + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (maximum, maximum))


def _reset_peak() -> None:
    """Begin the peak anew, where Linux lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_nbytes() -> int:
    """The peak resident memory since it was reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
