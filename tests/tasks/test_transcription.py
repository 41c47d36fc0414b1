"""Files of a transcription."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bascule import InputError
from bascule.tasks.transcription import Segment, Transcription, Word


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, (1, 2), 0.1, -0.25, 1.5, 0.0)


FOUND = Transcription(
    "en",
    4000.5,
    [segment(0.0, 2.5, " One & two <b>."), segment(3599.9996, 3661.042, " A\n\n--> B")],
)


def test_srt() -> None:
    assert FOUND.formatted("srt") == (
        "1\n00:00:00,000 --> 00:00:02,500\nOne & two <b>.\n\n"
        "2\n01:00:00,000 --> 01:01:01,042\nA\n-> B\n"
    )


def test_vtt() -> None:
    assert FOUND.formatted("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nOne &amp; two &lt;b>.\n\n"
        "01:00:00.000 --> 01:01:01.042\nA\n-> B\n"
    )


def test_text_and_json() -> None:
    assert FOUND.text == "One & two <b>. A\n\n--> B"
    assert FOUND.formatted() == "One & two <b>.\nA\n\n--> B\n"
    result = json.loads(FOUND.formatted("json"))
    assert (result["language"], result["duration"]) == ("en", 4000.5)
    assert result["segments"][0] == FOUND.segments[0].as_json()
    assert result["segments"][0]["ids"] == [1, 2]


def test_nothing_was_said() -> None:
    empty = Transcription("en", 1.0)
    assert (empty.text, empty.formatted("srt"), empty.formatted("vtt")) == ("", "", "WEBVTT\n")


def test_another_format() -> None:
    with pytest.raises(InputError, match="'txt', 'srt', 'vtt', 'json'"):
        FOUND.formatted("doc")


def test_words_are_subtitles_of_their_own() -> None:
    words = (Word(0.0, 0.25, " One", 0.9), Word(0.3, 2.5, " & two.", 0.5))
    spoken = Transcription("en", 3.0, [replace(FOUND.segments[0], words=words)])
    assert spoken.formatted("srt", words=True) == (
        "1\n00:00:00,000 --> 00:00:00,250\nOne\n\n2\n00:00:00,300 --> 00:00:02,500\n& two.\n"
    )
    assert spoken.formatted(words=True) == "One\n& two.\n"
    assert (
        json.loads(spoken.formatted("json", words=True))["segments"][0]["words"][0]["end"] == 0.25
    )
    with pytest.raises(InputError, match="word_timestamps=True"):
        FOUND.formatted("srt", words=True)
