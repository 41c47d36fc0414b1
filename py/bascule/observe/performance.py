"""A PerformanceMonitor's report: plain numbers, as JSON and as a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from bascule.backend.profile import KernelTime, MemorySample, Profile, Span, TimedBy, by_name
from bascule.backend.tiers import Tier
from bascule.tasks.loaded import ModelRun

_MB = 1 << 20
# Threads of the trace: one row each.
_WORK, _COMPILE, _RUNS = 1, 2, 3


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One call of a model; rates are tokens per second, 0 if they have no meaning."""

    kind: str
    start_s: float
    ms: float
    n_tokens: int
    n_new_tokens: int
    first_token_ms: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """What ran between `start` and `stop_and_get_report`.

    `timed_by` says how: "timestamps" of the GPU around each dispatch, "calls" of ops on the CPU, or
    "submissions" on a device without timestamps. Times named `_ms` are milliseconds, `start_s`
    seconds since the start. `busy_ms` sums `work`, `shader_compilation_time_ms` is the time in
    which at least one pipeline was being compiled, `memory_peak_mb` the peak of the device
    meanwhile, in MiB. `n_untimed` dispatches ran without timestamps (a tape has them in its first
    run, then in every 8th).
    """

    tier: Tier
    device: str
    timed_by: TimedBy
    seconds: float
    inference_time_ms: float
    shader_compilation_time_ms: float
    busy_ms: float
    memory_peak_mb: float
    written_nbytes: int
    read_nbytes: int
    crossings: int
    n_submissions: int
    n_untimed: int
    kernels: tuple[KernelTime, ...]
    runs: tuple[TimedRun, ...]
    work: tuple[Span, ...]
    compiled: tuple[Span, ...]
    memory: tuple[MemorySample, ...]

    @property
    def first_token_ms(self) -> float:
        """From the call to the first token, of the first generation; 0 if there was none."""
        return next((run.first_token_ms for run in self.runs if run.n_new_tokens), 0.0)

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second after the first one, of the last generation; 0 if there was none."""
        return next((r.tokens_per_s for r in reversed(self.runs) if r.n_new_tokens), 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        result = asdict(self)
        return {**result, "first_token_ms": self.first_token_ms, "tokens_per_s": self.tokens_per_s}

    def chrome_trace(self) -> dict[str, Any]:
        """Return the same in Chrome's trace format, which Perfetto and chrome://tracing open."""
        work = "GPU" if self.timed_by != "calls" else "CPU"
        rows = {_WORK: f"{work} by {self.timed_by}", _COMPILE: "compiled pipelines", _RUNS: "calls"}
        events: list[dict[str, Any]] = [
            _named("process_name", 0, f"Bascule: {self.tier} ({self.device})"),
            *(_named("thread_name", row, name) for row, name in rows.items()),
            *(_event(s.name, _WORK, s.start_s, s.seconds) for s in self.work),
            *(_event(s.name, _COMPILE, s.start_s, s.seconds) for s in self.compiled),
            *(_event(run.kind, _RUNS, run.start_s, run.ms / 1e3) for run in self.runs),
        ]
        for sample in self.memory:
            counter = {"name": "device memory", "ph": "C", "pid": 1, "ts": 1e6 * sample.at_s}
            events.append({**counter, "args": {"bytes": sample.nbytes}})
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def save_chrome_trace(self, path: str | PathLike[str]) -> None:
        """Write `chrome_trace` to a file."""
        Path(path).write_text(json.dumps(self.chrome_trace()), "utf-8")


def _named(what: str, row: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": row, "ts": 0, "args": {"name": name}}


def _event(name: str, row: int, start_s: float, seconds: float) -> dict[str, Any]:
    at_us = max(0.0, 1e6 * start_s)
    return {"name": name, "ph": "X", "pid": 1, "tid": row, "ts": at_us, "dur": 1e6 * seconds}


def report_of(
    profile: Profile, runs: Sequence[tuple[float, ModelRun]], tier: Tier, device: str
) -> PerformanceReport:
    """Return the report of a profile and of runs, each with the second in which it ended."""
    return PerformanceReport(
        tier,
        device,
        profile.timed_by,
        profile.seconds,
        1e3 * sum(run.seconds for _, run in runs),
        1e3 * _covered_s(profile.compiled),
        1e3 * sum(span.seconds for span in profile.work),
        max((sample.nbytes for sample in profile.memory), default=0) / _MB,
        profile.written_nbytes,
        profile.read_nbytes,
        profile.crossings,
        profile.n_submissions,
        profile.n_untimed,
        by_name(profile.work),
        tuple(_timed_run(ended_s, run) for ended_s, run in runs),
        tuple(profile.work),
        tuple(profile.compiled),
        tuple(profile.memory),
    )


def _timed_run(ended_s: float, run: ModelRun) -> TimedRun:
    if run.n_new_tokens:
        rate = (run.n_new_tokens - 1) / run.decode_s if run.decode_s else 0.0
    else:
        rate = run.n_tokens / run.seconds if run.seconds else 0.0
    start_s, first_ms = max(0.0, ended_s - run.seconds), 1e3 * run.first_token_s
    ms = 1e3 * run.seconds
    return TimedRun(run.kind, start_s, ms, run.n_tokens, run.n_new_tokens, first_ms, rate)


def _covered_s(spans: Sequence[Span]) -> float:
    """Return the seconds in which at least one of the spans lasts."""
    total_s, end_s = 0.0, 0.0
    for span in sorted(spans, key=lambda span: span.start_s):
        until_s = span.start_s + span.seconds
        total_s += max(0.0, until_s - max(end_s, span.start_s))
        end_s = max(end_s, until_s)
    return total_s
