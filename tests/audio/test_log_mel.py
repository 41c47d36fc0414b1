"""The log-mel front end against float64 and against transformers' feature extractor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import gcd
from pathlib import Path

import numpy as np
import pytest

from bascule.audio.features import LogMel
from bascule.audio.mel import log_mel, mel_filters
from bascule.audio.samples import checked_samples, resample
from bascule.backend.base import Backend
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import open_native as open_gpu
from bascule.errors import BasculeError, InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import cost_of
from tests.audio.sounds import KEPT_FRAMES, RATE, SOUNDS, Array, clicks, sweep

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "mel.npz")


async def webgpu() -> Backend:
    return WebGpuBackend(await open_gpu())


async def wasm() -> Backend:
    return WasmBackend(open_native())


async def cpu() -> Backend:
    return ReferenceBackend()


def in_float64(samples: Array, bands: int) -> Array:
    """The spectrum by numpy's own FFT."""
    wide = np.zeros(480_000)
    wide[: len(samples)] = samples
    wide = np.pad(wide, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
    frames = np.stack([wide[i * 160 : i * 160 + 400] * window for i in range(3000)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    logs = np.log10(np.maximum(mel_filters(bands) @ power.T, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


@pytest.mark.parametrize("open_backend", [webgpu, wasm, cpu])
@pytest.mark.parametrize("bands", [80, 128])
async def test_features_are_those_of_the_reference(
    open_backend: Callable[[], Awaitable[Backend]], bands: int
) -> None:
    backend = await open_backend()
    features = await LogMel.open(backend, bands)
    for name, sound in SOUNDS.items():
        result = await features.features(sound())
        assert result.shape == (bands, 3000)
        golden = GOLDENS[f"{name}_{bands}"]
        np.testing.assert_allclose(result[:, KEPT_FRAMES], golden, atol=1e-3)
        np.testing.assert_allclose(result, in_float64(sound(), bands), atol=1e-3)
    features.close()
    assert "weights" not in backend.memory.by_kind
    backend.close()


def test_the_transform_is_cheap_beside_an_encoder() -> None:
    graph = Graph("log-mel")
    graph.output(log_mel(graph, 80))
    work = sum(cost_of(call).multiply_adds for call in freeze(graph).calls)
    assert work < 0.6e9  # Whisper tiny's encoder: 16 G


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([], "at least one sample"),
        (np.zeros((2, 9)), r"one axis \(N\), found shape \(2, 9\).* one channel"),
        (np.array([0.0, 1, np.nan]), "finite numbers, found nan at index 2"),
        (np.array([np.inf]), "finite numbers, found inf at index 0"),
        (np.zeros(9, np.int16), "floats, found dtype int16.*32768"),
        (["a"], "floats"),
        (np.zeros(480_001), r"at most 30 s, found 30\.00 s"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bad_samples_are_rejected(samples: object, told: str) -> None:
    features = await LogMel.open(ReferenceBackend())
    with pytest.raises(InputError, match=told) as caught:
        await features.features(samples)  # type: ignore[arg-type]
    assert isinstance(caught.value, BasculeError)
    assert caught.value.category == "input"


@pytest.mark.parametrize("rate", [0, -16000, 10**7, 44100.0, True, "16000"])
def test_bad_rates_are_rejected(rate: object) -> None:
    with pytest.raises(InputError, match="sample_rate"):
        resample(np.zeros(9, np.float32), rate, RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_tones_keep_their_place_at_another_rate(rate: int) -> None:
    seconds, top = 0.5, 0.8 * min(rate, RATE) / 2
    for hertz in (0.0, 440.0, 2345.6, top):
        x = np.cos(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)
        y = resample(x, rate, RATE)
        assert len(y) == -(-len(x) * (RATE // gcd(RATE, rate)) // (rate // gcd(RATE, rate)))
        expected = np.cos(2 * np.pi * hertz * np.arange(len(y)) / RATE)
        inner = slice(RATE // 20, -RATE // 20)  # where the recording's ends are not heard
        np.testing.assert_allclose(y[inner], expected[inner], atol=5e-4)


@pytest.mark.parametrize("rate", [32000, 44100, 48000])
def test_what_the_new_rate_cannot_hold_is_gone(rate: int) -> None:
    for hertz in (8000.0, 9000.0, 0.49 * rate):
        x = np.sin(2 * np.pi * hertz * np.arange(rate // 2) / rate).astype(np.float32)
        y = resample(x, rate, RATE)[RATE // 20 : -RATE // 20]
        assert np.abs(y).max() < 3e-3, hertz  # -50 dB


def test_the_own_rate_changes_nothing() -> None:
    x = clicks()
    assert resample(x, RATE, RATE) is x
    assert checked_samples(x.astype(np.float64)).dtype == np.float32


async def test_a_recording_of_another_rate_has_the_same_features() -> None:
    features = await LogMel.open(ReferenceBackend())
    x = sweep(2.0)
    plain, doubled = await features.features(x), resample(x, 8000, RATE)  # x, at twice the rate
    result = await features.features(doubled, 2 * RATE)
    difference = np.abs(result - plain)[:70, 5:190]  # but for the highest bands, which roll off
    assert difference.mean() < 5e-3
