"""A loaded speech model: a recording in, its text out in segments."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from time import perf_counter
from typing import Any, TypeVar, Unpack

from bascule.audio.activity import MIN_PAUSE, PAD, Span, active_spans, next_window
from bascule.audio.features import LogMel
from bascule.audio.mel import RATE, STEP
from bascule.audio.recordings import read_samples
from bascule.backend.base import Executable, StateStore
from bascule.base.arrays import Array, ArrayLike, need_numpy
from bascule.base.progress import Progress
from bascule.base.turns import CrossLoopLock
from bascule.errors import NotFiniteError
from bascule.models.decoder.graph import CacheDType
from bascule.program.program import Program
from bascule.tasks.loaded import DEVICE_ERRORS, LoadedModel, Placement
from bascule.tasks.speech_aligner import Heads
from bascule.tasks.speech_graph import SpeechSpec, speech_programs
from bascule.tasks.speech_options import TranscribeOptions, TranscriptionRequest, read_options
from bascule.tasks.speech_rows import FIRST_SLOTS, RowPrograms, rows_program
from bascule.tasks.speech_rules import kinds_of
from bascule.tasks.speech_steps import COUNTERS, STAGES, DecoderSteps
from bascule.tasks.speech_tokens import SpeechTokens
from bascule.tasks.speech_window import Texts, WindowDecoder
from bascule.tasks.streams import ResultStream
from bascule.tasks.transcription import Segment, Transcription
from bascule.tasks.voice import VoiceActivityModel
from bascule.text.language import LanguageTokenizer

# Devices that may be lost one after the other within one window.
_DEVICES_IN_VAIN = 2
_WORK_MS = "transcribe_ms"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """The settings of a model's files."""

    speech: SpeechSpec
    tokenizer: LanguageTokenizer
    tokens: SpeechTokens
    heads: Heads


@dataclass(slots=True)
class _Prepared:
    """What is prepared on one backend; `close` frees all but the backend and the weights."""

    features: LogMel
    encoder: Executable
    step: Executable
    choice: Executable
    rows: RowPrograms
    states: StateStore

    def close(self) -> None:
        for owned in (self.features, self.encoder, self.step, self.choice, self.rows):
            owned.close()
        self.states.close()


class SpeechStream(ResultStream[Segment, Transcription]):
    """A stream of segments: `async for segment in stream`. `result` grows with them.

    Leaving the loop early does not stop the work; `await stream.aclose()` or `async with` does.
    """


class SpeechModel(LoadedModel):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory.

    Windows of concurrent transcriptions take turns.
    """

    def __init__(
        self,
        placement: Placement,
        settings: SpeechSettings,
        *,
        cache_dtype: CacheDType = "f16",
    ) -> None:
        super().__init__(placement)
        self._settings = settings
        self._cache_dtype = cache_dtype
        self._prepared: _Prepared | None = None
        self._turn = CrossLoopLock()
        self._totals = {"windows": 0.0, "audio_s": 0.0, _WORK_MS: 0.0}
        self._totals |= dict.fromkeys((*COUNTERS, *STAGES), 0.0)

    @property
    def tokenizer(self) -> LanguageTokenizer:
        """The model's tokenizer."""
        return self._settings.tokenizer

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of its languages."""
        return tuple(self._settings.tokens.languages) or ("en",)

    async def transcribe(
        self, audio: ArrayLike | str | PathLike[str] | bytes, **options: Unpack[TranscribeOptions]
    ) -> Transcription:
        """Return the text of a recording, with its segments.

        `audio` is samples (N) from -1 to 1 at `sample_rate` (16,000), a file's path, URL or bytes,
        or in a page a JavaScript AudioBuffer; at most 4 hours. `language` is a code ("de"), and
        detected if it is None; with `task` "translate" the text is English. Without `timestamps`
        each window of 30 s is one segment; with `word_timestamps` segments have words; with
        `vad_filter` (True, or a voice activity model) pauses of 2 s and more are skipped.
        `temperatures` and the thresholds say when a window is decoded again (see
        `TranscribeOptions`), `seed` makes that repeatable. `progress` counts milliseconds of the
        recording. InputError for invalid audio and options, NotFiniteError for logits that are not
        finite. Cancelling the task stops the work.
        """
        stream = self.stream_transcribe(audio, **options)
        async with stream:
            async for _ in stream:
                pass
        return stream.result

    def stream_transcribe(
        self, audio: ArrayLike | str | PathLike[str] | bytes, **options: Unpack[TranscribeOptions]
    ) -> SpeechStream:
        """Stream the segments of a recording as they are found; arguments as `transcribe`."""
        self._check_open("transcribe")
        request = read_options(options, self._settings.tokens)
        result = Transcription()
        return SpeechStream(result, self._segments(audio, request, result))

    async def detect_language(
        self, audio: ArrayLike | str | PathLike[str] | bytes, *, sample_rate: int = RATE
    ) -> tuple[str, float]:
        """Return the most likely language of the first 30 s, and its probability."""
        self._check_open("detect_language")
        if not self._settings.tokens.languages:
            return "en", 1.0
        samples = await read_samples(audio, sample_rate, RATE, "detect_language")
        window = samples[: self._settings.speech.config.frames * STEP]
        return await self._on_device(window, WindowDecoder.language)

    async def _segments(
        self, audio: Any, request: TranscriptionRequest, result: Transcription
    ) -> AsyncGenerator[Segment]:
        """Yield the segments of one transcription; `result` is complete when they end."""
        began = perf_counter()
        notify = request.progress or (lambda _: None)
        samples = await read_samples(audio, request.sample_rate, RATE, "transcribe")
        result.duration = len(samples) / RATE
        longest, total = self._settings.speech.config.frames, max(1, len(samples) // STEP)
        spans = await _active(samples[: STEP * total], request.vad_filter)
        result.language = request.language or ""
        if not spans:
            notify(Progress("transcribe", 10 * total, 10 * total, "ms"))
        seek = 0
        while (window := next_window(spans, seek, longest)) is not None:
            self._check_open("transcribe")
            seek, frames = window[0], window[1] - window[0]
            sound = samples[STEP * seek : STEP * (seek + frames)]
            work = partial(self._window, request=request, result=result, seek=seek, frames=frames)
            segments, ahead = await self._on_device(sound, work)
            seek += ahead
            result.segments += segments
            self._totals["windows"] += 1
            result.stats["windows"] = result.stats.get("windows", 0.0) + 1
            result.stats["work_s"] = perf_counter() - began
            done = min(seek, total) if next_window(spans, seek, longest) else total
            notify(Progress("transcribe", 10 * done, 10 * total, "ms"))
            for segment in segments:
                yield segment
        self._totals["audio_s"] += result.duration
        self._totals[_WORK_MS] += 1e3 * (perf_counter() - began)

    async def _window(
        self,
        decoder: WindowDecoder,
        *,
        request: TranscriptionRequest,
        result: Transcription,
        seek: int,
        frames: int,
    ) -> tuple[list[Segment], int]:
        if not result.language:
            result.language = (await decoder.language())[0]
        decoded = await decoder.decode(result.language, request)
        if decoder.is_silence(decoded, request):
            return [], frames
        segments, ahead = decoder.segments(decoded, seek, frames, request)
        if request.word_timestamps:
            spoken = max((w.end for s in result.segments for w in s.words), default=0.0)
            language, span = result.language, (seek, frames)
            segments = await decoder.with_words(segments, language, request.task, span, spoken)
        return segments, ahead

    async def _on_device(
        self, sound: Array, work: Callable[[WindowDecoder], Awaitable[Result]]
    ) -> Result:
        """Encode one window, then run `work`, which needs the encoder's states; again on another
        device if this one is lost.
        """
        for attempt in range(_DEVICES_IN_VAIN + 1):
            async with self._alone():
                backend = self.backend
                with self._while_open():
                    try:
                        await self._pause_under_pressure()
                        prepared = await self._ready()
                        await self._encode(prepared, sound)
                        decoder = self._decoder(prepared)
                        try:
                            return await work(decoder)
                        finally:
                            for name, count in decoder.steps.totals.items():
                                self._totals[name] += count
                    except DEVICE_ERRORS as lost:
                        if attempt == _DEVICES_IN_VAIN:
                            raise
                        await self.revive(lost, backend)
        raise AssertionError("the last attempt returns or raises")

    async def _encode(self, prepared: _Prepared, sound: Array) -> None:
        began = perf_counter()
        mel = await prepared.features.features(sound)
        extracted = perf_counter()
        places = self._settings.speech.config.encoder.places
        lengths = memoryview(array("I", [places])).cast("B").cast("I", (1,))
        await prepared.encoder.submit({}, {"mel": mel, "lengths": lengths})
        self._totals["features_ms"] += 1e3 * (extracted - began)
        self._totals["encoder_ms"] += 1e3 * (perf_counter() - extracted)

    def _decoder(self, prepared: _Prepared) -> WindowDecoder:
        def not_finite(where: str) -> NotFiniteError:
            return NotFiniteError(self.name, where, self.tier)

        steps = DecoderSteps(prepared.step, prepared.choice, prepared.states, not_finite)
        settings = self._settings
        places = settings.speech.config.decoder.places
        texts = Texts(settings.tokens, settings.tokenizer, places)
        return WindowDecoder(steps, texts, prepared.rows, settings.heads)

    def _programs(self) -> list[Program]:
        times = self._settings.tokens.timestamps
        return speech_programs(self._settings.speech, self._cache_dtype, times)

    async def _ready(self) -> _Prepared:
        """Prepare both passes and the features, unless they are."""
        if self._prepared is not None:
            return self._prepared
        await need_numpy("transcribe()", "Load numpy into this Pyodide.")
        speech = self._settings.speech
        fitted = [self._fitting.fit(p) for p in self._programs()]
        rows = self._fitting.fit(rows_program(speech, self._cache_dtype, 1, ()))
        values = {value.name: value for program in (*fitted, rows) for value in program.states}
        states = self._backend.states(list(values.values()), {"S": FIRST_SLOTS})
        executables: list[Executable] = []
        try:
            for name, numbers in speech.family.states(speech.config).items():
                states.write(name, 0, numbers)
            kinds = kinds_of(self._settings.tokens, speech.config.vocabulary)
            states.write("kinds", 0, kinds)
            for program in fitted:
                executables.append(await self._backend.prepare(program, self.weights, states))
            features = await LogMel.open(self._backend, speech.config.bands, speech.config.frames)
        except BaseException:
            for each in (*executables, states):
                each.close()
            raise
        step, encoder, choice = executables
        several = RowPrograms(
            self._backend, self.weights, states, self._fitting, speech, self._cache_dtype
        )
        self._prepared = _Prepared(features, encoder, step, choice, several, states)
        return self._prepared

    async def _prepare(self) -> None:
        await self._ready()

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """See `LoadedModel._alone`. Between two windows: they share the states."""
        async with self._turn.turn(), self._device.turn():
            yield

    def _close_programs(self) -> None:
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def _trim_programs(self) -> None:
        if not self._turn.locked():  # a window uses them all
            self._close_programs()

    @property
    def _planned_nbytes(self) -> int:
        if self._prepared is None:
            return 0
        planned = sum(p.planned_nbytes for p in self._programs())
        return planned + self._prepared.rows.planned_nbytes + self._prepared.states.nbytes

    def _tunable(self) -> list[Program]:
        return self._fitting.fit_possible(self._programs())

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: windows, decoder steps, how often the host read whole logits,
        seconds of sound, milliseconds in total and by stage.

        On a GPU the stages before the first step only queue their work, and the prompt's stage
        waits for it.
        """
        cache = self._prepared.states.nbytes if self._prepared else 0
        return {"cache_nbytes": cache, **self._totals, **self.device_stats}


async def _active(samples: Array, vad_filter: bool | VoiceActivityModel) -> list[Span]:
    """Return the frames of 10 ms to decode: all, the loud ones, or those that a model chooses."""
    if isinstance(vad_filter, bool):
        return active_spans(samples) if vad_filter else [(0, max(1, len(samples) // STEP))]
    frame_ms = 1000 * STEP // RATE
    spans = await vad_filter.speech_spans(
        samples, min_silence_duration_ms=frame_ms * MIN_PAUSE, speech_pad_ms=frame_ms * PAD
    )
    per_s = RATE // STEP
    return [(int(per_s * span.start), round(per_s * span.end)) for span in spans]
