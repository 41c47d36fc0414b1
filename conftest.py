"""What both suites print of themselves: what ran when a run was cut off, where the time went."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import pytest

RUNNING = Path(__file__).resolve().parent / "out" / "running-tests.txt"
N_SLOWEST = 10
# A property of a test: (TIME_OF, (kind, seconds)); see e2e/conftest.py.
TIME_OF = "time of"


class Running:
    """Names the tests that run, in a file and when the run is told to end.

    pytest-xdist reports starts and ends to the controller, so it knows those of all workers.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began: dict[str, float] = {}
        self._printed = False
        self._previous = signal.signal(signal.SIGTERM, self._terminated)
        RUNNING.parent.mkdir(exist_ok=True)
        # Opened once: to open and truncate it for each test costs 5 ms on a busy disk.
        self._file = RUNNING.open("w")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began[nodeid] = time.monotonic()
        self._write()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._began.pop(nodeid, None)
        self._write()

    def pytest_keyboard_interrupt(self) -> None:
        self._print("")

    def pytest_unconfigure(self) -> None:
        signal.signal(signal.SIGTERM, self._previous)
        self._file.close()
        RUNNING.unlink(missing_ok=True)

    def _text(self) -> str:
        now = time.monotonic()
        lines = [f"  {now - began:7.1f} s  {name}" for name, began in self._began.items()]
        return "\n".join(["Still running:", *lines])

    def _write(self) -> None:
        self._file.seek(0)
        self._file.write(self._text() + "\n")
        self._file.truncate()
        self._file.flush()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._print("\nEnded by a signal. ")
        raise KeyboardInterrupt

    def _print(self, words: str) -> None:
        if not self._printed:
            capturing = self._config.pluginmanager.getplugin("capturemanager")
            with capturing.global_and_fixture_disabled() if capturing else nullcontext():
                print(f"{words}{self._text()}", file=sys.stderr, flush=True)
        self._printed = True


class Times:
    """Prints the slowest tests, the sum of all time by kind, and why tests were repeated.

    Of workers it also prints how long each had nothing to run at the end.
    """

    def __init__(self) -> None:
        self._by_test: Counter[str] = Counter()
        self._by_kind: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()  # properties of each test that are counted
        self._repeated: list[tuple[str, str, str]] = []
        self._last: dict[str, float] = {}  # when each worker ended its last test

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._by_test[report.nodeid] += report.duration
        if worker := getattr(report, "worker_id", None):
            self._last[worker] = time.monotonic()
        kind = report.when or "call"
        # Each report of a test has all properties so far, those of a first attempt too.
        for name, value in report.user_properties[self._seen[report.nodeid] :]:
            if name == TIME_OF:
                part, seconds = value
                self._by_kind[part] += seconds
                self._by_kind[kind] -= seconds
        self._seen[report.nodeid] = len(report.user_properties)
        self._by_kind[kind] += report.duration
        if report.outcome == "rerun":
            crash = getattr(report.longrepr, "reprcrash", None)
            cause = crash.message if crash else str(report.longrepr)
            cause = cause.strip().splitlines()[0][:200]
            self._repeated.append((report.nodeid, cause, report.longreprtext))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._repeated:
            terminalreporter.section("repeated after a failure")
            for name, _, failure in self._repeated:
                terminalreporter.write_line(f"{name}\n{failure}\n")
            for name, cause, _ in self._repeated:
                terminalreporter.write_line(f"{name}: {cause}")
        if len(self._by_test) <= N_SLOWEST:
            return
        terminalreporter.section("where the time went")
        names = {"call": "work"}
        for kind, seconds in self._by_kind.most_common():
            terminalreporter.write_line(f"{seconds:8.1f} s  {names.get(kind, kind)}")
        if self._last:
            end = max(self._last.values())
            idle = ", ".join(f"{name} {end - at:.0f} s" for name, at in sorted(self._last.items()))
            terminalreporter.write_line(f"idle at the end: {idle}")
        terminalreporter.write_line(f"the {N_SLOWEST} slowest of {len(self._by_test)} tests:")
        for name, seconds in self._by_test.most_common(N_SLOWEST):
            terminalreporter.write_line(f"{seconds:8.1f} s  {name}")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests, which each collection would walk through


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers report to the controller
        config.pluginmanager.register(Running(config))
        config.pluginmanager.register(Times())
