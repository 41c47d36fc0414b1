"""The measurements of a profile: dispatches, compilations, bytes, memory.

Times are seconds since its start, on one clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from bascule.errors import InputError

# How work was timed: "timestamps" of the GPU, one dispatch each; "calls" of ops on the CPU;
# "submissions", from submit until done, on a device without timestamps.
TimedBy = Literal["timestamps", "calls", "submissions"]


@dataclass(frozen=True, slots=True)
class Span:
    """A timed dispatch, op call, submission or compilation."""

    name: str
    start_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Bytes that the device held from a moment on."""

    at_s: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured between `start_profile` and `stop_profile`.

    `work` is in order of time. `n_untimed` dispatches ran untimed: of a tape's runs the first and
    then every 8th is timed, while there is room for timestamps. `written_nbytes` went to the
    device, `read_nbytes` came back.
    """

    timed_by: TimedBy
    seconds: float
    work: Sequence[Span] = ()
    compiled: Sequence[Span] = ()
    memory: Sequence[MemorySample] = ()
    n_submissions: int = 0
    n_untimed: int = 0
    written_nbytes: int = 0
    read_nbytes: int = 0
    crossings: int = 0


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel, or an op on the CPU, over a whole profile; times in milliseconds."""

    name: str
    count: int
    total_ms: float
    mean_ms: float
    max_ms: float


def by_name(spans: Sequence[Span]) -> tuple[KernelTime, ...]:
    """Sum the times by name, longest first."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for span in spans:
        times[span.name].append(1e3 * span.seconds)
    results = [
        KernelTime(name, len(all_ms), sum(all_ms), sum(all_ms) / len(all_ms), max(all_ms))
        for name, all_ms in times.items()
    ]
    return tuple(sorted(results, key=lambda kernel: (-kernel.total_ms, kernel.name)))


@dataclass(frozen=True, slots=True)
class ShaderLog:
    """A compilation: the file, the kernel's variant, its duration, and the compiler's messages,
    each with its line; empty if it compiled.
    """

    shader: str
    variant: str
    ms: float
    messages: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceSpan:
    """A driver's span, with the handle of its pipeline."""

    pipeline: int
    label: str
    start_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted tape: its pipelines, with the start and end of each in nanoseconds of the GPU's
    clock. Without timestamps `ticks` is empty and `done_s` is the time when it was done.
    """

    at_s: float
    pipelines: Sequence[int]
    ticks: Sequence[int] = ()
    done_s: float | None = None


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """A driver's measurements, before names and clocks are joined; see `Profile`."""

    timed: bool
    seconds: float
    submissions: Sequence[Submission] = ()
    labels: dict[int, str] = field(default_factory=dict[int, str])
    compiled: Sequence[DeviceSpan] = ()
    memory: Sequence[tuple[float, int]] = ()
    n_untimed: int = 0
    written_nbytes: int = 0
    read_nbytes: int = 0
    crossings: int = 0


def joined(profile: GpuProfile, names: dict[int, str]) -> Profile:
    """Join a driver's measurements with `names` of its pipelines, on one clock."""

    def name(pipeline: int) -> str:
        return names.get(pipeline) or profile.labels.get(pipeline, f"pipeline {pipeline}")

    work: list[Span] = []
    if profile.timed:
        offset_s = _offset_s(profile.submissions)
        for each in profile.submissions:
            for index, pipeline in enumerate(each.pipelines[: len(each.ticks) // 2]):
                start, end = each.ticks[2 * index : 2 * index + 2]
                seconds = max(0, end - start) / 1e9
                work.append(Span(name(pipeline), start / 1e9 + offset_s, seconds))
    else:
        for each in profile.submissions:
            if each.done_s is not None:
                label = f"{len(each.pipelines)} dispatches"
                work.append(Span(label, each.at_s, max(0.0, each.done_s - each.at_s)))
    return Profile(
        "timestamps" if profile.timed else "submissions",
        profile.seconds,
        sorted(work, key=lambda span: span.start_s),
        [Span(name(c.pipeline) or c.label, c.start_s, c.seconds) for c in profile.compiled],
        [MemorySample(at_s, nbytes) for at_s, nbytes in profile.memory],
        len(profile.submissions),
        profile.n_untimed,
        profile.written_nbytes,
        profile.read_nbytes,
        profile.crossings,
    )


def _offset_s(submissions: Sequence[Submission]) -> float:
    """Return the offset of the GPU's clock to the host's: no work starts before its submission."""
    gaps = [each.at_s - each.ticks[0] / 1e9 for each in submissions if each.ticks]
    return max(gaps, default=0.0)


class OpTimes:
    """Times op calls for a backend on the CPU; `spans` is None while there is no profile."""

    def __init__(self) -> None:
        self.spans: list[Span] | None = None
        self.began_s = 0.0
        self.n_runs = 0

    def start(self) -> None:
        """Start timing; InputError if a profile is running."""
        if self.spans is not None:
            raise InputError("start_profile", "a backend that is not profiled", "one that is")
        self.spans, self.began_s, self.n_runs = [], perf_counter(), 0

    def note(self, name: str, started_s: float) -> None:
        """Record a call from `started_s`, on `perf_counter`, until now."""
        if self.spans is not None:
            at_s = started_s - self.began_s
            self.spans.append(Span(name, at_s, perf_counter() - started_s))

    def stop(self, memory: Sequence[tuple[float, int]]) -> Profile:
        """Return what was timed since `start`; `memory` has times on `perf_counter`."""
        spans, self.spans = self.spans, None
        if spans is None:
            raise InputError("stop_profile", "a backend that is profiled", "one that is not")
        samples = [MemorySample(at_s - self.began_s, nbytes) for at_s, nbytes in memory]
        seconds = perf_counter() - self.began_s
        return Profile("calls", seconds, spans, memory=samples, n_submissions=self.n_runs)
