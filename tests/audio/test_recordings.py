"""Recordings as callers have them, and files that are none."""

from __future__ import annotations

import io
import struct
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bascule import InputError
from bascule.audio.recordings import Recording, read_recording
from bascule.errors import BasculeError, FileMissingError

RATE = 8000
WAVES = np.sin(np.arange(400) / 9).astype(np.float64) * 0.9


def wav(samples: np.ndarray[Any, Any], width: int = 2) -> bytes:
    """A WAV file of samples (N, channels)."""
    scaled = np.round(samples * (2.0 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        scaled += 128
    raw = scaled.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(width)
        out.setframerate(RATE)
        out.writeframes(raw)
    return file.getvalue()


GOOD = wav(WAVES[:, None])


@pytest.fixture(autouse=True)
def _by_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
async def test_widths_and_channels(width: int, tmp_path: Path) -> None:
    stereo = np.stack([WAVES, np.zeros(400)], axis=1)
    file = tmp_path / "a.wav"
    file.write_bytes(wav(stereo, width))
    for given in (file, str(file), file.read_bytes()):
        result = await read_recording(given, 16_000)
        assert result.rate == RATE
        assert result.samples.dtype == np.float32
        np.testing.assert_allclose(
            result.samples, WAVES / 2, atol=1.1 * 2.0 ** (-8 * width + 1) + 1e-7
        )


class Buffer:
    """What Pyodide shows of a JavaScript AudioBuffer."""

    sampleRate, numberOfChannels, length = 44_100.0, 2, 400

    def getChannelData(self, at: int) -> np.ndarray[Any, Any]:
        return (WAVES if at == 0 else 0 * WAVES).astype(np.float32)


async def test_an_audio_buffer_is_the_mean_of_its_channels() -> None:
    result = await read_recording(Buffer(), 16_000)
    assert result.rate == 44_100
    np.testing.assert_allclose(result.samples, WAVES / 2, atol=1e-6)


async def test_samples_are_taken_as_they_are() -> None:
    for given in (WAVES, WAVES.tolist(), memoryview(WAVES)):
        result = await read_recording(given, 22_050)
        assert isinstance(result, Recording)
        assert result.rate == 22_050
        np.testing.assert_array_equal(result.samples, WAVES)


async def test_a_file_that_ends_early_gives_what_it_has() -> None:
    result = await read_recording(GOOD[:-200], 16_000)
    assert len(result.samples) == 300


def _claiming(at: int, kind: str, value: int) -> Callable[[], bytes]:
    def changed() -> bytes:
        data = bytearray(GOOD)
        struct.pack_into(kind, data, at, value)
        return bytes(data)

    return changed


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: b"", "empty"),
        (lambda: b"RIFF", "another format"),
        (lambda: b"ID3" + bytes(100), "another format.*soundfile"),
        (lambda: GOOD[:30], "cannot be read"),
        (lambda: GOOD[:44], "holds no samples"),
        (lambda: wav(np.zeros((0, 1))), "holds no samples"),
        (_claiming(22, "<H", 0), "cannot be read"),
        (_claiming(22, "<H", 65_535), "claims 65535 channels"),
        (_claiming(24, "<I", 0), "cannot be read|claims"),
        (_claiming(34, "<H", 64), "claims 1 channels of 64 bits"),
        (_claiming(34, "<H", 0), "cannot be read|claims"),
        (_claiming(20, "<H", 85), "cannot be read"),
    ],
)
async def test_what_is_no_sound_is_an_error(made: Callable[[], bytes], told: str) -> None:
    with pytest.raises(InputError, match="(?s)" + told):
        await read_recording(made(), 16_000)


async def test_other_errors(tmp_path: Path) -> None:
    hours = np.broadcast_to(np.float32(0), (10 * 3600 * 16_000,))  # 10 hours in four bytes
    cases: list[tuple[object, type[BasculeError], str]] = [
        (hours, InputError, "at most 4 hours.*10.0"),
        (tmp_path / "none.wav", FileMissingError, "no such file"),
        (tmp_path, InputError, "the folder"),
        ([1, 2, 3], InputError, "floats from -1 to 1"),
        ({"a": 1}, InputError, "samples"),
        (None, InputError, "samples"),
        ("ftp://host/a.wav", InputError, "http or https"),
    ]
    for given, error, result in cases:
        with pytest.raises(error, match="(?s)" + result):
            await read_recording(given, 16_000)
    long = bytearray(wav(np.zeros((400, 1)), 1))
    struct.pack_into("<I", long, 24, 1)  # 400 frames at 1 Hz, then more than 4 hours
    long += bytes(20_000)
    struct.pack_into("<I", long, 40, 20_400)
    struct.pack_into("<I", long, 4, len(long) - 8)
    with pytest.raises(InputError, match="at most 4 hours"):
        await read_recording(bytes(long), 16_000)
