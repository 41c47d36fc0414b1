"""Voice activity by energy, on recordings whose pauses are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bascule.audio.activity import active_spans, next_window
from bascule.audio.recordings import read_recording

RATE = 16_000
RECORDINGS = Path(__file__).parents[1] / "recordings"


async def speech(name: str) -> np.ndarray:
    result = await read_recording(RECORDINGS / f"{name}.wav", RATE)
    assert result.rate == RATE
    return np.asarray(result.samples, np.float32)


@pytest.mark.parametrize("noise_db", [None, -70, -45])
async def test_pauses_between_recordings_are_found(noise_db: int | None) -> None:
    bridge, measure = await speech("bridge"), await speech("measure")
    pause = np.zeros(20 * RATE, np.float32)
    samples = np.concatenate([pause, bridge, pause, measure, pause])
    if noise_db is not None:
        rng = np.random.default_rng()
        samples = samples + (10 ** (noise_db / 20) * rng.standard_normal(len(samples)))
        samples = samples.astype(np.float32)
    spans = active_spans(samples)
    seconds = [(start / 100, end / 100) for start, end in spans]
    result = (20, 20 + len(bridge) / RATE, 40 + len(bridge) / RATE)
    assert len(seconds) == 2, seconds
    assert result[0] - 0.5 < seconds[0][0] < result[0] + 0.6
    assert result[1] - 1.0 < seconds[0][1] < result[1] + 0.5
    assert result[2] - 0.5 < seconds[1][0] < result[2] + 0.6


async def test_speech_is_one_part() -> None:
    for name in ("bridge", "measure"):
        samples = await speech(name)
        ((start, end),) = active_spans(samples)
        assert start < 60
        assert end > len(samples) / 160 - 100


@pytest.mark.parametrize("count", [1, 159, 160, 161, 16_001])
def test_one_level_is_all_or_nothing(count: int) -> None:
    assert active_spans(np.zeros(count, np.float32)) == []
    tone = np.full(count, 0.25, np.float32)
    assert active_spans(tone) == [(0, -(-count // 160))]


def test_windows_jump_over_pauses() -> None:
    spans = [(100, 400), (900, 1200), (9000, 9100)]
    assert next_window(spans, 0, 3000) == (100, 1200)
    assert next_window(spans, 1000, 3000) == (1000, 1200)
    assert next_window(spans, 1200, 3000) == (9000, 9100)
    assert next_window(spans, 9100, 3000) is None
    assert next_window(spans, 0, 500) == (100, 400)
    assert next_window([(0, 10_000)], 0, 3000) == (0, 3000)
    assert next_window([], 0, 3000) is None
