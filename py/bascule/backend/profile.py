"""What a backend measures while it is profiled: dispatches, compilations, bytes, memory.

Times are seconds since the profile was started, on one clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

from bascule.errors import InputError

# How work was timed: "timestamps" of the GPU, a dispatch each; "calls" of ops on the CPU;
# "submissions", from the submit until the queue has done it, where a device has no timestamps.
TimedBy = Literal["timestamps", "calls", "submissions"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time: a dispatch, the call of an op, a submission, a compilation."""

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

    `work` is in order of time. `n_untimed` dispatches ran and were not timed: of a tape's runs the
    first is timed and then each 8th, as far as there is room for timestamps. `written_nbytes`
    and `read_nbytes` went to the device and came back.
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
    """One kernel, or one op on the CPU, over a whole profile; times in milliseconds."""

    name: str
    count: int
    total_ms: float
    mean_ms: float
    max_ms: float


def by_name(spans: Sequence[Span]) -> tuple[KernelTime, ...]:
    """What took how long, the longest first."""
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
    """One compilation: its file, the kernel's variant, how long it took, and what the compiler has
    against it, each with its line; no messages where it compiled.
    """

    shader: str
    variant: str
    ms: float
    messages: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceSpan:
    """A span of a driver, with the handle of its pipeline."""

    pipeline: int
    label: str
    start_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Submission:
    """A tape that was submitted: its pipelines, and start and end of each in nanoseconds of the
    GPU's own clock. Without timestamps `ticks` is empty and `done_s` says when it was done.
    """

    at_s: float
    pipelines: Sequence[int]
    ticks: Sequence[int] = ()
    done_s: float | None = None


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """What a driver measures, before names and clocks are brought together; see `Profile`."""

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
    """A driver's measurements with `names` for its pipelines and one clock."""

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
    """What brings the GPU's clock to the host's: no work starts before it was submitted."""
    gaps = [each.at_s - each.ticks[0] / 1e9 for each in submissions if each.ticks]
    return max(gaps, default=0.0)


class OpTimes:
    """Times calls of ops for a backend on the CPU; `spans` is None while nothing is profiled."""

    def __init__(self) -> None:
        self.spans: list[Span] | None = None
        self.began_s = 0.0
        self.n_runs = 0

    def start(self) -> None:
        """Begin to time; InputError where that has begun."""
        if self.spans is not None:
            raise InputError("start_profile", "a backend that is not profiled", "one that is")
        self.spans, self.began_s, self.n_runs = [], perf_counter(), 0

    def note(self, name: str, started_s: float) -> None:
        """A call that started then, on `perf_counter`, and has ended now."""
        if self.spans is not None:
            at_s = started_s - self.began_s
            self.spans.append(Span(name, at_s, perf_counter() - started_s))

    def stop(self, memory: Sequence[tuple[float, int]]) -> Profile:
        """What was timed since `start`; `memory` has moments on `perf_counter`."""
        spans, self.spans = self.spans, None
        if spans is None:
            raise InputError("stop_profile", "a backend that is profiled", "one that is not")
        samples = [MemorySample(at_s - self.began_s, nbytes) for at_s, nbytes in memory]
        seconds = perf_counter() - self.began_s
        return Profile("calls", seconds, spans, memory=samples, n_submissions=self.n_runs)
