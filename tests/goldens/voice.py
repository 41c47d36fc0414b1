"""Sounds with and without speech, the same on every machine; 16 kHz, float32."""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 16_000
_RECORDINGS = Path(__file__).parents[1] / "recordings"


def recording(name: str) -> Array:
    """A recording of 8 bits."""
    with wave.open(str(_RECORDINGS / f"{name}.wav")) as file:
        assert (file.getframerate(), file.getsampwidth()) == (RATE, 1)
        data = file.readframes(file.getnframes())
    return ((np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128).astype(np.float32)


def chord(seconds: float) -> Array:
    """Music, as loud as speech: three notes, struck anew twice a second."""
    at = np.arange(int(seconds * RATE)) / RATE
    notes = sum(np.sin(2 * np.pi * hertz * at) for hertz in (220.0, 277.2, 329.6))
    return (0.2 * notes * np.exp(-4 * (at % 0.5))).astype(np.float32)


def music_and_speech() -> Array:
    """Music, a sentence under noise, music, another sentence: 20 s, more than one pass."""
    noise = np.random.default_rng(3).standard_normal(len(speech := recording("bridge")))
    noisy = speech + 0.005 * noise.astype(np.float32)
    return np.concatenate([chord(3), noisy, chord(3), recording("measure")])


SOUNDS: Mapping[str, Callable[[], Array]] = {
    "measure": lambda: recording("measure"),
    "bridge": lambda: recording("bridge"),
    "music_and_speech": music_and_speech,
    "one_sample": lambda: np.full(1, 0.25, np.float32),
}
