"""One window of sound: its tokens by search or sampling, and the segments that they form."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from time import perf_counter
from typing import Any

from bascule.base.arrays import Array, np
from bascule.tasks.speech_aligner import CHUNK, Aligner, Heads
from bascule.tasks.speech_beams import Search, search_beams
from bascule.tasks.speech_options import TranscriptionRequest
from bascule.tasks.speech_rows import RowDecoder, RowPrograms
from bascule.tasks.speech_rules import allowed_ids, allowed_logits, log_softmax
from bascule.tasks.speech_steps import DecoderSteps
from bascule.tasks.speech_tokens import SpeechTokens
from bascule.tasks.speech_words import give_words, split_words, timed_words
from bascule.tasks.transcription import Segment
from bascule.text.language import LanguageTokenizer

# Frames of a spectrum per timestamp step of 0.02 seconds.
TIME_FRAMES = 2
FRAME_S = 0.01
# Steps between two yields to the event loop.
_TURN = 8


@dataclass(frozen=True, slots=True)
class WindowTokens:
    """The tokens of one window, without the end."""

    ids: list[int]
    text: str
    mean_log_probability: float
    no_speech_probability: float
    compression_ratio: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Texts:
    """The meaning of a model's tokens, and the number of its decoder's positions."""

    tokens: SpeechTokens
    tokenizer: LanguageTokenizer
    places: int


class WindowDecoder:
    """Decodes windows whose sound has been encoded."""

    def __init__(self, steps: DecoderSteps, texts: Texts, rows: RowPrograms, heads: Heads) -> None:
        self.steps = steps
        self._tokens = texts.tokens
        self._tokenizer = texts.tokenizer
        self._places = texts.places
        self._rows = rows
        self._heads = heads

    async def language(self) -> tuple[str, float]:
        """Return the most likely language of the window, and its probability."""
        logits = await self.steps.logits(self._tokens.start, 0, stage="prompt_ms")
        codes = list(self._tokens.languages)
        logs = log_softmax(logits.astype(np.float64)[list(self._tokens.languages.values())])
        best = int(logs.argmax())
        return codes[best], exp(logs[best])

    async def decode(self, language: str, request: TranscriptionRequest) -> WindowTokens:
        """Return the tokens at the first temperature that gives a plausible text, else the last."""
        result: WindowTokens | None = None
        for temperature in request.temperatures:
            result = await self._decode(language, request, temperature)
            repeats = result.compression_ratio > request.compression_ratio_threshold
            improbable = result.mean_log_probability < request.log_probability_threshold
            if not (repeats or improbable) or self.is_silence(result, request):
                break
        assert result is not None  # there is at least one temperature
        return result

    def is_silence(self, decoded: WindowTokens, request: TranscriptionRequest) -> bool:
        """Whether the window has no speech."""
        improbable = decoded.mean_log_probability < request.log_probability_threshold
        return decoded.no_speech_probability > request.no_speech_threshold and improbable

    async def _decode(
        self, language: str, request: TranscriptionRequest, temperature: float
    ) -> WindowTokens:
        tokens, timed = self._tokens, request.timestamps
        prompt = tokens.prompt(language, request.task, timestamps=timed)
        if request.beam_size > 1 and not temperature > 0:
            return await self._searched(prompt, request)
        random = np.random.default_rng((request.seed, round(1000 * temperature)))
        silent, first = await self._start(prompt)
        ids: list[int] = []
        total = 0.0
        max_tokens = self._max(prompt)
        while True:
            last, at = (ids or prompt)[-1], len(prompt) + len(ids) - 1
            stage = "decode_ms" if ids else "prompt_ms"
            if not temperature > 0 and (ids or first is None):
                allowed = allowed_ids(ids, tokens, timestamps=timed)
                token, log_probability = await self.steps.choose(last, at, allowed, stage=stage)
            else:
                logits = first if first is not None and not ids else None
                if logits is None:
                    logits = await self.steps.logits(last, at, stage=stage)
                began = perf_counter()
                logs = log_softmax(allowed_logits(logits, ids, tokens, timestamps=timed))
                token = _chosen(logs, temperature, random)
                log_probability = float(logs[token])
                self.steps.totals["rules_ms"] += 1e3 * (perf_counter() - began)
            total += log_probability
            if token == tokens.end:
                break
            ids.append(token)
            if len(ids) >= max_tokens:
                break
            if len(ids) % _TURN == 0:
                await asyncio.sleep(0)
        return self._tokens_of_window(ids, total, silent, temperature)

    async def _searched(self, prompt: list[int], request: TranscriptionRequest) -> WindowTokens:
        """Return the best of `asked.beam_size` texts."""
        tokens, timed, totals = self._tokens, request.timestamps, self.steps.totals
        rows = RowDecoder(self._rows, request.beam_size, (), self.steps.not_finite)
        max_tokens, end = self._max(prompt), tokens.end
        search = Search(
            request.beam_size, request.patience, request.length_penalty, end, max_tokens
        )

        def weigh(logits: Array, ids: Sequence[int]) -> Array:
            return log_softmax(allowed_logits(logits, ids, tokens, timestamps=timed))

        began = perf_counter()
        best, logits = await search_beams(rows, prompt, search, weigh)
        totals["decode_ms"] += 1e3 * (perf_counter() - began)
        totals["decoder_steps"] += rows.passes
        totals["logits_reads"] += rows.passes
        return self._tokens_of_window(list(best.ids), best.total, self._silence(logits), 0.0)

    def _max(self, prompt: list[int]) -> int:
        """Return the most tokens of a window's text: half of the positions are for a prompt."""
        return min(self._places // 2 - 1, self._places - len(prompt))

    def _tokens_of_window(
        self, ids: list[int], total: float, silent: float, temperature: float
    ) -> WindowTokens:
        text = self.text_of(ids)
        mean = total / (len(ids) + 1)
        return WindowTokens(ids, text, mean, silent, _compression(text), temperature)

    async def _start(self, prompt: list[int]) -> tuple[float, Array | None]:
        """Read all of the prompt but its last token.

        Return the probability of no speech, and the logits after a prompt of one token.
        """
        logits = await self.steps.logits(prompt[0], 0, stage="prompt_ms")
        for at, token in enumerate(prompt[1:-1], 1):
            await self.steps.read(token, at)
        return self._silence(logits), logits if len(prompt) == 1 else None

    def _silence(self, logits: Array) -> float:
        """Return the probability of no speech, from the logits after the first token."""
        if self._tokens.no_speech is None:
            return 0.0
        return exp(log_softmax(logits.astype(np.float64))[self._tokens.no_speech])

    def text_of(self, ids: list[int]) -> str:
        """Return the text of ids, without timestamps."""
        return self._text([token for token in ids if token < self._tokens.end])

    async def with_words(
        self,
        segments: Sequence[Segment],
        language: str,
        task: str,
        span: tuple[int, int],
        spoken: float,
    ) -> list[Segment]:
        """Return a window's segments with the words of each.

        `span` is the window's first frame and its number of frames; `spoken` is the end of the last
        word before it, in seconds.
        """
        seek, frames = span
        ids = [token for each in segments for token in each.ids if token < self._tokens.end]
        if not ids:
            return list(segments)
        rows = RowDecoder(self._rows, CHUNK, tuple(self._heads), self.steps.not_finite)
        aligner = Aligner(rows, self._heads)
        prompt = self._tokens.prompt(language, task, timestamps=False)
        end = self._tokens.end
        times, shares = await aligner.times(prompt, ids, end, frames // TIME_FRAMES)
        words = timed_words(split_words(ids, self._text, language), times, shares)
        return give_words(segments, words, end, FRAME_S * seek, spoken)

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode_bytes(ids).decode("utf-8", "replace")

    def segments(
        self, decoded: WindowTokens, seek: int, frames: int, request: TranscriptionRequest
    ) -> tuple[list[Segment], int]:
        """Return a window's segments, and after how many frames the next one starts.

        The window has `frames` frames of sound, from frame `seek` of the recording.
        """
        first, ids = self._tokens.timestamps, decoded.ids
        times = [token >= first for token in ids]
        cuts = [at for at in range(1, len(ids)) if times[at - 1] and times[at]]
        ends_whole = times[-2:] == [False, True]
        if not (request.timestamps and cuts):
            stamps = [token for token in ids if token > first]
            length = min(TIME_FRAMES * (stamps[-1] - first), frames) if stamps else frames
            return self._segment(decoded, seek, (0, length), ids), frames
        if ends_whole:
            cuts.append(len(ids))
        results: list[Segment] = []
        last = 0
        for cut in cuts:
            piece = ids[last:cut]
            start, end = (TIME_FRAMES * (token - first) for token in (piece[0], piece[-1]))
            results += self._segment(decoded, seek, (start, end), piece)
            last = cut
        ahead = frames if ends_whole else TIME_FRAMES * (ids[last - 1] - first)
        # The last end may be 0 s, but a window must end.
        return results, ahead or frames

    def _segment(
        self, decoded: WindowTokens, seek: int, span: tuple[int, int], ids: list[int]
    ) -> list[Segment]:
        """Return one segment, none if it is empty; `span` are frames of the window."""
        text = self.text_of(ids)
        if span[0] >= span[1] or not text.strip():
            return []
        start, end = (round(FRAME_S * (seek + frame), 2) for frame in span)
        return [
            Segment(
                start,
                end,
                text,
                tuple(ids),
                decoded.no_speech_probability,
                decoded.mean_log_probability,
                decoded.compression_ratio,
                decoded.temperature,
            )
        ]


def _chosen(logs: Array, temperature: float, random: Any) -> int:
    """Return the most likely token, or at a temperature a sampled one."""
    if not temperature > 0:
        return int(logs.argmax())
    weights = np.exp((logs - logs.max()) / temperature)
    mass = np.cumsum(weights)
    return int(np.searchsorted(mass, random.random() * mass[-1], side="right"))


def _compression(text: str) -> float:
    """Return by how many times zlib shortens a text; 0 for an empty one."""
    data = text.strip().encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0
