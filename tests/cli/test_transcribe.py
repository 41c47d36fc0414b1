"""`bascule transcribe` as its user meets it."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from tests import speech_folders as folders
from tests.cli.running import run
from tests.goldens import TINY_BERT

CPU = ("--tier", "cpu")


@pytest.fixture
def noise(tmp_path: Path) -> str:
    """A second of noise at 8 kHz."""
    file = tmp_path / "noise.wav"
    samples = np.random.default_rng(4).integers(-9000, 9000, 8000, np.int16)
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(samples.tobytes())
    return str(file)


def test_formats_have_the_same_segments(noise: str, tmp_path: Path) -> None:
    model = ("--model", str(folders.hugging_face(tmp_path / "m")), *CPU)
    result = run("transcribe", noise, *model, "--format", "json", "--language", "de")
    assert (result.returncode, result.stderr) == (0, "")
    output = json.loads(result.stdout)
    assert (output["language"], output["duration"]) == ("de", 1.0)
    assert output["segments"]
    subtitles = run("transcribe", noise, *model, "--format", "srt", "--language", "de").stdout
    assert subtitles.count(" --> ") == len(output["segments"])
    german = (*model, "--language", "de", "--words")
    words = json.loads(run("transcribe", noise, *german, "--format", "json").stdout)["segments"]
    count = sum(len(segment["words"]) for segment in words)
    assert count > len(words)
    assert run("transcribe", noise, *german, "--format", "vtt").stdout.count(" --> ") == count
    unknown = run("transcribe", noise, *model, "--language", "xx")
    assert unknown.returncode == 1
    assert "one of 'en', 'de', 'fr'" in unknown.stderr


def test_what_cannot_be_transcribed(noise: str, tmp_path: Path) -> None:
    other = run("transcribe", noise, "--model", str(TINY_BERT), *CPU)
    assert other.returncode == 1
    assert "it transcribes no speech" in other.stderr
    model = ("--model", str(folders.hugging_face(tmp_path / "m")), *CPU)
    missing = run("transcribe", str(tmp_path / "none.wav"), *model)
    assert missing.returncode == 1
    assert "there is no such file" in missing.stderr
