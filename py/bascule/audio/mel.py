"""The log-mel spectrum of Whisper (Radford et al. 2022), recorded as a graph.

A recording of 30 s becomes 3000 frames of 25 ms, one every 10 ms. The Fourier transform of a
frame is a product with a table of 201 cosines and 201 sines: 0.5 G multiply-adds for 30 s, where
the smallest encoder takes 16 G.
"""

from __future__ import annotations

from math import log

from bascule.base.arrays import Array, np
from bascule.program.graph import Graph
from bascule.program.program import Value

RATE = 16_000
WINDOW, STEP = 400, 160
N_FRAMES = 3000
_BINS = WINDOW // 2 + 1
_COLUMNS = 404  # 2 * _BINS in whole vec4s; the last two are zeros
# Slaney's mel scale: 15 mels to 1000 Hz, from there 27 per factor of 6.4.
_LINEAR_HZ, _BREAK_HZ, _BREAK_MEL = 200 / 3, 1000.0, 15.0
_LOG_STEP = log(6.4) / 27


def log_mel(graph: Graph, bands: int, frames: int = N_FRAMES) -> Value:
    """Record samples (160 F) -> log-mel (bands, F); the tables are those of `mel_tables`."""
    samples = graph.input("samples", (frames * STEP,))
    window = graph.parameter("window", (WINDOW,))
    fourier = graph.parameter("fourier", (_COLUMNS, WINDOW))
    filters = graph.parameter("filters", (bands, _COLUMNS))
    x = graph.call("frames", samples, window, step=STEP, pad=WINDOW // 2, count=frames)
    waves = graph.call("linear", x, fourier, activation="none")  # (F, 404)
    power = graph.call("multiply", waves, waves)
    mel = graph.call("linear", power, filters, activation="none")  # (F, bands)
    logs = graph.call("log10", graph.call("transpose", mel, axes="10"), floor=1e-10)
    top = graph.call("largest", logs)
    return graph.call("limit_range", logs, top, span=8.0, scale=0.25, offset=1.0)


def mel_tables(bands: int) -> dict[str, Array]:
    """Return the parameters of `log_mel`, float64, by name."""
    at = np.arange(WINDOW)
    angles = 2 * np.pi / WINDOW * (np.arange(_BINS)[:, None] * at % WINDOW)
    fourier = np.zeros((_COLUMNS, WINDOW))
    fourier[:_BINS], fourier[_BINS : 2 * _BINS] = np.cos(angles), np.sin(angles)
    filters = np.zeros((bands, _COLUMNS))
    filters[:, :_BINS] = filters[:, _BINS : 2 * _BINS] = mel_filters(bands)
    window = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * at)  # Hann, periodic
    return {"window": window, "fourier": fourier, "filters": filters}


def mel_filters(bands: int) -> Array:
    """Triangles (bands, 201) of equal area, evenly spaced in mels from 0 to 8000 Hz (Slaney)."""
    mels = np.linspace(0, _BREAK_MEL + log(RATE / 2 / _BREAK_HZ) / _LOG_STEP, bands + 2)
    linear = mels * _LINEAR_HZ
    edges = np.where(mels < _BREAK_MEL, linear, _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL)))
    hertz = np.arange(_BINS) * (RATE / WINDOW)
    low, middle, high = (edges[i : i + bands, None] for i in range(3))
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))
