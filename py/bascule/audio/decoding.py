"""Sound files: WAV by the standard library, other formats by soundfile if it is installed."""

from __future__ import annotations

import importlib
import io
import sys
import wave
from pathlib import Path
from typing import Any

from bascule.base.arrays import Array, np
from bascule.errors import FileMissingError, InputError

# Seconds are checked before samples are read, bytes before that.
_MAX_NBYTES = 8 << 30
# A header with more channels is not believed.
_MAX_CHANNELS = 64
_INSTALL = "pip install soundfile reads other formats; or convert it: ffmpeg -i FILE out.wav"
_IN_PAGE = "Decode it with decodeAudioData and pass the AudioBuffer, or convert it to WAV."


def read_file(path: str, max_s: int) -> tuple[Array, int]:
    """Return the samples (N) float32 of a sound file, channels averaged, and their rate.

    FileMissingError; InputError for an invalid file, or more than `max_s` seconds.
    """
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise InputError("audio", "a sound file", f"the folder {path}")
        nbytes = file.stat().st_size
        if nbytes > _MAX_NBYTES:
            raise InputError("audio", f"at most {_MAX_NBYTES:,} bytes", f"{nbytes:,}")
        with file.open("rb") as stream:
            return _decode(stream, path, max_s)
    except FileNotFoundError:
        raise FileMissingError(path, hint="Give the path of a sound file.") from None
    except OSError as error:
        raise InputError("audio", "a file that can be read", f"{path}: {error.strerror}") from None


def decode_audio(data: bytes, name: str, max_s: int) -> tuple[Array, int]:
    """Return the samples of a sound file's bytes, as `read_file`; `name` is for errors."""
    return _decode(io.BytesIO(data), name, max_s)


def _decode(stream: Any, name: str, max_s: int) -> tuple[Array, int]:
    start = stream.read(12)
    stream.seek(0)
    if not start:
        raise InputError("audio", "a sound file", f"{name}, which is empty")
    reader = _soundfile()
    if reader is not None:
        return _by_soundfile(reader, stream, name, max_s)
    if start[:4] != b"RIFF" or start[8:] != b"WAVE":
        hint = _IN_PAGE if sys.platform == "emscripten" else _INSTALL
        raise InputError("audio", "a WAV file", f"{name}, another format", hint=hint)
    return _by_wave(stream, name, max_s)


def _soundfile() -> Any | None:
    """Return the optional package; None if it, or the library that it loads, is missing."""
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError):
        return None


def _by_soundfile(reader: Any, stream: Any, name: str, max_s: int) -> tuple[Array, int]:
    try:
        with reader.SoundFile(stream) as file:
            _check(file.frames, file.samplerate, name, max_s)
            samples = file.read(dtype="float32", always_2d=True)
            return _mono(samples, name), file.samplerate
    except reader.LibsndfileError as error:
        raise _corrupt(name, str(error)) from None


def _by_wave(stream: Any, name: str, max_s: int) -> tuple[Array, int]:
    try:
        with wave.open(stream) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            if not (1 <= width <= 4 and 1 <= channels <= _MAX_CHANNELS and rate > 0):
                raise _corrupt(name, f"it claims {channels} channels of {8 * width} bits")
            # No more is read than the file has: a header may claim anything.
            raw = file.readframes(min(file.getnframes(), max_s * rate + 1))
    except (wave.Error, EOFError, ValueError) as error:
        raise _corrupt(name, str(error) or "it ends too early") from None
    n_frames = len(raw) // (width * channels)
    _check(n_frames, rate, name, max_s)
    integers = np.frombuffer(raw[: n_frames * width * channels], np.uint8).reshape(-1, width)
    return _mono(_scaled(integers, width).reshape(-1, channels), name), rate


def _scaled(raw: Array, width: int) -> Array:
    """Return integers of `width` bytes (N, width), little-endian, as float32 from -1 to 1."""
    if width == 1:  # these alone have no sign
        return (raw[:, 0].astype(np.float32) - 128) / 128
    words = np.zeros((len(raw), 4), np.uint8)
    words[:, 4 - width :] = raw
    return words.view("<i4")[:, 0].astype(np.float32) / 2**31


def _check(frames: int, rate: int, name: str, max_s: int) -> None:
    if frames > max_s * rate:
        expected, result = (
            f"at most {max_s // 3600} hours",
            f"{frames / rate / 3600:.1f} in {name}",
        )
        raise InputError("audio", expected, result, hint="Cut it, and transcribe each part.")


def _mono(samples: Array, name: str) -> Array:
    if not len(samples):
        raise _corrupt(name, "it holds no samples")
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def _corrupt(name: str, problem: str) -> InputError:
    hint = "Convert it to WAV in 16-bit PCM: ffmpeg -i FILE out.wav"
    return InputError(
        "audio", "a sound file", f"{name}, which cannot be read: {problem}", hint=hint
    )
