"""A loaded voice activity model: a recording in, the parts with speech out."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
from math import inf
from os import PathLike
from time import perf_counter
from typing import TypeAlias

from bascule.audio.mel import RATE
from bascule.audio.recordings import read_samples
from bascule.audio.voice import SpanRules, SpeechSpan, speech_spans
from bascule.backend.base import Executable
from bascule.base.arguments import described, is_number
from bascule.base.arrays import Array, ArrayLike, np
from bascule.base.progress import Progress, ProgressCallback
from bascule.base.turns import CrossLoopLock
from bascule.errors import InputError, NotFiniteError
from bascule.models.family import VoiceFamily
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from bascule.tasks.loaded import DEVICE_ERRORS, LoadedModel, Placement

Audio: TypeAlias = ArrayLike | str | PathLike[str] | bytes

# Windows of a pass: 16 s of sound, or the rest of it and at most 2 s more.
_PASSES = (512, 64)


def voice_programs(family: VoiceFamily) -> list[Program]:
    """Record the passes of all numbers of windows."""
    return [_program(family, count) for count in _PASSES]


def _program(family: VoiceFamily, count: int) -> Program:
    graph = Graph(f"{family.name} {count}")
    family.record(graph, count)
    return freeze(graph)


class VoiceActivityModel(LoadedModel):
    """Finds speech in a recording; made by `bascule.load`.

    `window_s` is the length of a window in seconds. Close it, or use it in `async with`, to free
    the device's memory.
    """

    def __init__(self, placement: Placement, family: VoiceFamily) -> None:
        super().__init__(placement)
        self._family = family
        self.window_s = family.windows.samples / RATE
        self._passes: dict[int, Executable] = {}
        self._preparing = CrossLoopLock()
        self._totals = {"windows": 0.0, "audio_s": 0.0, "detect_ms": 0.0}

    async def speech_spans(
        self,
        audio: Audio,
        *,
        sample_rate: int = RATE,
        threshold: float = 0.5,
        min_speech_duration_ms: float = 250,
        min_silence_duration_ms: float = 100,
        speech_pad_ms: float = 30,
        progress: ProgressCallback | None = None,
    ) -> list[SpeechSpan]:
        """Return the parts of a recording with speech, in order.

        `audio` is what `SpeechModel.transcribe` takes. Speech starts in a window whose probability
        reaches `threshold` and ends when it stays 0.15 below for `min_silence_duration_ms`. Parts
        of at most `min_speech_duration_ms` are left out; the others get `speech_pad_ms` at both
        ends, or half of a shorter pause. `progress` counts milliseconds of the recording.
        InputError for invalid audio and for options out of range, NotFiniteError for results that
        are not finite.
        """
        rules = SpanRules(
            _within("threshold", threshold, 1),
            _within("min_speech_duration_ms", min_speech_duration_ms) / 1e3,
            _within("min_silence_duration_ms", min_silence_duration_ms) / 1e3,
            _within("speech_pad_ms", speech_pad_ms) / 1e3,
        )
        samples = await self._samples("speech_spans", audio, sample_rate)
        probabilities = await self._detect(samples, progress)
        return speech_spans(probabilities.tolist(), self.window_s, len(samples) / RATE, rules)

    async def probabilities(
        self,
        audio: Audio,
        *,
        sample_rate: int = RATE,
        progress: ProgressCallback | None = None,
    ) -> Array:
        """Return the probability of speech in each window (W) float32; arguments and errors as
        above.

        The last window is padded with silence.
        """
        samples = await self._samples("probabilities", audio, sample_rate)
        return await self._detect(samples, progress)

    async def _samples(self, verb: str, audio: Audio, sample_rate: int) -> Array:
        self._check_open(verb)
        return await read_samples(audio, sample_rate, RATE, verb)

    async def _detect(self, samples: Array, progress: ProgressCallback | None) -> Array:
        began, notify = perf_counter(), progress or (lambda _: None)
        per_window = self._family.windows.samples
        total = -(-len(samples) // per_window)
        state = np.zeros(self._family.state, np.float32)
        results: list[Array] = []
        done = 0
        while done < total:
            size = _PASSES[0] if total - done > _PASSES[-1] else _PASSES[-1]
            count = min(size, total - done)
            frames = self._frames(samples, done, size)
            await self._pause_under_pressure()
            logits, state = await self._on_device(frames, state, count)
            results.append(1 / (1 + np.exp(-np.maximum(logits, -80))))
            done += count
            notify(Progress("detect", _ms(done * per_window), _ms(total * per_window), "ms"))
            await asyncio.sleep(0)
        self._totals["windows"] += total
        self._totals["audio_s"] += len(samples) / RATE
        self._totals["detect_ms"] += 1e3 * (perf_counter() - began)
        return np.concatenate(results)

    def _frames(self, samples: Array, first: int, count: int) -> Array:
        """Return the frames of `count` windows from `first` on, silence past the end."""
        cut = self._family.windows
        begin = first * cut.samples - cut.context
        wide = np.zeros(cut.context + count * cut.samples, np.float32)
        there = samples[max(0, begin) : begin + len(wide)]
        skipped = max(0, -begin)
        wide[skipped : skipped + len(there)] = there
        view = np.lib.stride_tricks.sliding_window_view
        windows = view(wide, cut.context + cut.samples)[:: cut.samples]
        mirrored = windows[:, -2 : -2 - cut.mirrored : -1]  # the last sample once
        padded = np.concatenate([windows, mirrored], axis=1)
        frames = view(padded, cut.frame, axis=1)[:, :: cut.step]
        return np.ascontiguousarray(frames.reshape(-1, cut.frame))

    async def _on_device(self, frames: Array, state: Array, count: int) -> tuple[Array, Array]:
        """Return the logits of `count` windows and the state after them.

        Retried on another device if this one is lost.
        """
        async with self._device.turn():
            with self._while_open():
                backend = self.backend
                try:
                    return await self._run(frames, state, count)
                except DEVICE_ERRORS as lost:
                    await self.revive(lost, backend)
                    return await self._run(frames, state, count)

    async def _run(self, frames: Array, state: Array, count: int) -> tuple[Array, Array]:
        executable = await self._pass(len(frames) // self._family.windows.frames)
        inputs = {"frames": frames, "state": state, "lengths": np.array([count], np.uint32)}
        logits, after = (await executable.run({}, inputs)).values()
        speech, end = np.array(logits[:count, 0]), np.array(after[0])
        if not (np.isfinite(speech).all() and np.isfinite(end).all()):
            raise NotFiniteError(self.name, "the results of its windows", self.tier)
        return speech, end

    async def _pass(self, count: int) -> Executable:
        async with self._preparing.turn():
            result = self._passes.get(count)
            if result is None:
                program = self._fitting.fit(_program(self._family, count))
                result = await self._backend.prepare(program, self.weights)
                self._passes[count] = result
            return result

    async def _prepare(self) -> None:
        await self._pass(_PASSES[-1])

    def _close_programs(self) -> None:
        for executable in self._passes.values():
            executable.close()
        self._passes.clear()

    def _trim_programs(self) -> None:
        self._close_programs()

    @property
    def _planned_nbytes(self) -> int:
        return sum(program.planned_nbytes for program in voice_programs(self._family))

    def _tunable(self) -> list[Program]:
        return self._fitting.fit_possible(voice_programs(self._family))

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: windows, seconds of sound, milliseconds."""
        return {**self._totals, **self.device_stats}


def _ms(samples: int) -> int:
    return 1000 * samples // RATE


def _within(name: str, value: object, maximum: float = inf) -> float:
    if not is_number(value) or not 0 <= value <= maximum:
        expected = "a number of at least 0" if maximum == inf else f"a number from 0 to {maximum:g}"
        raise InputError(name, expected, described(value))
    return float(value)
