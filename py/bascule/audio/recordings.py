"""A caller's recording: samples, a file, its bytes, a URL, or a page's AudioBuffer."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from os import PathLike
from typing import Any

from bascule.audio.decoding import decode_audio, read_file
from bascule.audio.samples import checked_samples, resample
from bascule.base.arguments import described
from bascule.base.arrays import Array, need_numpy, np
from bascule.errors import InputError

# The longest recording; its samples at 16 kHz take 0.9 GB.
MAX_S = 4 * 3600
_EXPECTED = "samples (N), a path, a URL, a file's bytes or an AudioBuffer"
_HINT = "Cut it, and transcribe each part."


@dataclass(frozen=True, slots=True)
class Recording:
    """Samples (N) of one channel, `rate` per second."""

    samples: Array
    rate: int


async def read_samples(audio: Any, sample_rate: int, wanted: int, verb: str) -> Array:
    """Return a recording's samples (N) float32 at `wanted` per second; errors as `read_recording`.

    SetupError for a Pyodide without numpy, which the `verb` needs.
    """
    await need_numpy(f"{verb}()", "Load numpy into this Pyodide.")
    result = await read_recording(audio, sample_rate)
    return resample(checked_samples(result.samples, "audio"), result.rate, wanted)


async def read_recording(audio: Any, sample_rate: int) -> Recording:
    """Return a recording's samples; `sample_rate` is that of samples, files have their own.

    InputError for invalid audio, or longer than 4 hours; FileMissingError and SourceError for a
    file that cannot be read.
    """
    if isinstance(audio, str) and "://" in audio:
        return await _from_url(str(audio))
    if isinstance(audio, str | PathLike):
        if sys.platform == "emscripten":  # a page has no threads
            return Recording(*read_file(str(audio), MAX_S))
        return Recording(*await asyncio.to_thread(read_file, str(audio), MAX_S))
    if isinstance(audio, bytes | bytearray | memoryview) and _is_file(audio):
        return Recording(*decode_audio(bytes(audio), "audio", MAX_S))
    if hasattr(audio, "getChannelData") and hasattr(audio, "sampleRate"):
        return _from_buffer(audio)
    value: Any = audio
    try:  # a typed array of JavaScript's becomes one of Python's
        samples = np.asarray(value.to_py() if hasattr(value, "to_py") else value)
    except (TypeError, ValueError):
        raise InputError("audio", _EXPECTED, described(audio)) from None
    if samples.dtype.kind != "f":
        hint = "Pass one channel of floats from -1 to 1, such as samples / 32768 of 16-bit sound."
        raise InputError("audio", _EXPECTED, described(audio), hint=hint)
    check_length(samples.size, sample_rate)
    return Recording(samples, sample_rate)


def check_length(count: int, rate: int) -> None:
    """InputError for more samples than `MAX_S` seconds have at that rate."""
    if count > MAX_S * rate:
        hours = count / rate / 3600
        raise InputError("audio", f"at most {MAX_S // 3600} hours", f"{hours:.1f}", hint=_HINT)


def _is_file(data: bytes | bytearray | memoryview) -> bool:
    """Whether bytes are a file's: a memoryview of floats is samples."""
    return not isinstance(data, memoryview) or data.format in ("B", "b", "c")


def _from_buffer(buffer: Any) -> Recording:
    """Return the mean of a page's AudioBuffer's channels."""
    rate, count = round(buffer.sampleRate), int(buffer.numberOfChannels)
    check_length(int(buffer.length), rate)
    if count < 1:
        raise InputError("audio", "at least one channel", "none")
    total = np.zeros(int(buffer.length), np.float32)
    for at in range(count):
        channel = buffer.getChannelData(at)
        total += np.asarray(channel.to_py() if hasattr(channel, "to_py") else channel)
    return Recording(total / np.float32(count), rate)


async def _from_url(url: str) -> Recording:
    if sys.platform == "emscripten":
        from bascule.audio.fetching_browser import fetch_audio
    else:
        from bascule.audio.fetching import fetch_audio
    return Recording(*decode_audio(await fetch_audio(url), url, MAX_S))
