"""A transcription: its segments, and the files that players read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from bascule.base.arguments import one_of
from bascule.errors import InputError


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a segment, with its leading space and punctuation; `start`, `end` in seconds.

    `probability` is the mean of its tokens'.
    """

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a transcription; `start` and `end` are seconds.

    `mean_log_probability` and `no_speech_probability` are those of its window, as are the
    `temperature` at which it was decoded and its `compression_ratio`. `words` are there if they
    were requested.
    """

    start: float
    end: float
    text: str
    ids: tuple[int, ...]
    no_speech_probability: float
    mean_log_probability: float
    compression_ratio: float
    temperature: float
    words: tuple[Word, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values; words if there are any."""
        result = asdict(self) | {"ids": list(self.ids), "words": list(map(asdict, self.words))}
        return result if self.words else {n: v for n, v in result.items() if n != "words"}


Timed: TypeAlias = Segment | Word


@dataclass(slots=True)
class Transcription:
    """A recording's text: `text`, `segments` in order, `language` (a code) and its seconds."""

    language: str = ""
    duration: float = 0.0
    segments: list[Segment] = field(default_factory=list[Segment])
    stats: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def text(self) -> str:
        """The text of all segments."""
        return "".join(segment.text for segment in self.segments).strip()

    def formatted(self, kind: str = "txt", *, words: bool = False) -> str:
        """Return a file's text: "txt", "srt", "vtt" or "json"; InputError for another kind.

        With `words` each word is a subtitle ("srt", "vtt") or a line ("txt") of its own; JSON has
        the existing words. InputError for a transcription without words.
        """
        writer = _WRITERS[one_of("format", kind, FORMATS)]
        if not words:
            return writer(self, self.segments)
        if any(segment.text.strip() and not segment.words for segment in self.segments):
            hint = "Transcribe with word_timestamps=True."
            raise InputError("words", "a transcription with words", "one without", hint=hint)
        return writer(self, [word for segment in self.segments for word in segment.words])


def clock(seconds: float, mark: str) -> str:
    """Return hours:minutes:seconds with milliseconds after `mark`."""
    ms = round(1000 * seconds)
    minutes, rest = divmod(ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


def _cues(timed: Iterable[Timed], mark: str) -> list[str]:
    """Return the times and text of each. No line of a text is empty, or contains an arrow."""
    results: list[str] = []
    for each in timed:
        lines = (line.strip().replace("-->", "->") for line in each.text.splitlines())
        text = "\n".join(line for line in lines if line)
        results.append(f"{clock(each.start, mark)} --> {clock(each.end, mark)}\n{text}\n")
    return results


def _srt(_: Transcription, timed: Iterable[Timed]) -> str:
    return "\n".join(f"{at}\n{cue}" for at, cue in enumerate(_cues(timed, ","), 1))


def _vtt(_: Transcription, timed: Iterable[Timed]) -> str:
    escaped = (cue.replace("&", "&amp;").replace("<", "&lt;") for cue in _cues(timed, "."))
    return "\n".join(["WEBVTT\n", *escaped])


def _json(of: Transcription, _: Iterable[Timed]) -> str:
    fields = {"text": of.text, "language": of.language, "duration": of.duration}
    segments = [segment.as_json() for segment in of.segments]
    return json.dumps({**fields, "segments": segments}, ensure_ascii=False, indent=2) + "\n"


def _txt(_: Transcription, timed: Iterable[Timed]) -> str:
    return "".join(f"{each.text.strip()}\n" for each in timed)


_WRITERS: Mapping[str, Callable[[Transcription, Iterable[Timed]], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "json": _json,
}
FORMATS = tuple(_WRITERS)
