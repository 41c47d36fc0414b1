"""The options of a transcription: what callers may write, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, TypedDict, cast

from bascule.audio.mel import RATE
from bascule.base.arguments import described, did_you_mean, flag, is_number, one_of, whole_number
from bascule.base.progress import ProgressCallback
from bascule.errors import InputError
from bascule.tasks.speech_rows import MAX_BEAMS
from bascule.tasks.speech_tokens import SpeechTokens
from bascule.tasks.voice import VoiceActivityModel

SpeechTask = Literal["transcribe", "translate"]
# The defaults of the authors' own program.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MAX_TEMPERATURES = 16
_MAX_PATIENCE = 16


class TranscribeOptions(TypedDict, total=False):
    """Options of `SpeechModel.transcribe`; None is the same as leaving an option out.

    A window is decoded again at the next of the `temperatures` if its text compresses by more than
    `compression_ratio_threshold` (it repeats itself) or its mean log probability is below
    `log_probability_threshold`. It is silence if the probability of no speech exceeds
    `no_speech_threshold` and the text is not probable either. At temperature 0 the best of
    `beam_size` texts is used: of `beam_size` times `patience` finished ones, the one with the
    largest log probability over its length to the power of `length_penalty`. With `vad_filter`
    pauses of 2 s and more are not decoded: what is quiet, or what a given voice activity model
    detects no speech in.
    """

    sample_rate: int | None
    language: str | None
    task: SpeechTask | None
    timestamps: bool | None
    word_timestamps: bool | None
    vad_filter: bool | VoiceActivityModel | None
    temperatures: Sequence[float] | float | None
    compression_ratio_threshold: float | None
    log_probability_threshold: float | None
    no_speech_threshold: float | None
    beam_size: int | None
    patience: float | None
    length_penalty: float | None
    seed: int | None
    progress: ProgressCallback | None


OPTIONS = tuple(TranscribeOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """One transcription's checked options; see `TranscribeOptions`."""

    sample_rate: int
    language: str | None
    task: str
    timestamps: bool
    word_timestamps: bool
    vad_filter: bool | VoiceActivityModel
    temperatures: tuple[float, ...]
    compression_ratio_threshold: float
    log_probability_threshold: float
    no_speech_threshold: float
    beam_size: int
    patience: float
    length_penalty: float
    seed: int
    progress: ProgressCallback | None


def read_options(options: Mapping[str, Any], tokens: SpeechTokens) -> TranscriptionRequest:
    """Check options; InputError for an unknown or invalid one."""
    for name in options:
        if name not in OPTIONS:
            expected = f"some of {', '.join(OPTIONS)}"
            raise InputError("options", expected, repr(name), hint=did_you_mean(name, OPTIONS))
    chosen = {name: value for name, value in options.items() if value is not None}
    progress: Any = chosen.get("progress")
    if not (progress is None or callable(progress)):
        raise InputError("progress", "a function of a Progress", described(progress))
    return TranscriptionRequest(
        sample_rate=whole_number("sample_rate", chosen.get("sample_rate", RATE), 1),
        language=tokens.check_language(chosen.get("language")),
        task=tokens.check_task(
            one_of("task", chosen.get("task", "transcribe"), ("transcribe", "translate"))
        ),
        timestamps=flag("timestamps", chosen.get("timestamps", True)),
        word_timestamps=flag("word_timestamps", chosen.get("word_timestamps", False)),
        vad_filter=_vad_filter(chosen),
        temperatures=_temperatures(chosen.get("temperatures", _TEMPERATURES)),
        compression_ratio_threshold=_number(chosen, "compression_ratio_threshold", 2.4),
        log_probability_threshold=_number(chosen, "log_probability_threshold", -1.0),
        no_speech_threshold=_number(chosen, "no_speech_threshold", 0.6),
        beam_size=whole_number("beam_size", chosen.get("beam_size", 1), 1, MAX_BEAMS),
        patience=_positive(chosen, "patience"),
        length_penalty=_number(chosen, "length_penalty", 1.0),
        seed=whole_number("seed", chosen.get("seed", 0), 0, 2**32 - 1),
        progress=cast(ProgressCallback | None, progress),
    )


def _temperatures(value: object) -> tuple[float, ...]:
    listed: Any = [value] if isinstance(value, int | float) else value
    expected = "a number from 0 to 2, or a list of them"
    if not isinstance(listed, Sequence) or isinstance(listed, str | bytes):
        raise InputError("temperatures", expected, described(value))
    if not 0 < len(listed) <= _MAX_TEMPERATURES:
        raise InputError("temperatures", f"1 to {_MAX_TEMPERATURES} numbers", f"{len(listed)}")
    for each in cast(Sequence[object], listed):
        if not is_number(each) or not 0 <= each <= 2:
            raise InputError("temperatures", expected, described(each))
    return tuple(float(each) for each in cast(Sequence[float], listed))


def _positive(chosen: Mapping[str, Any], name: str) -> float:
    result = _number(chosen, name, 1.0)
    if not 0 < result <= _MAX_PATIENCE:
        raise InputError(name, f"a number above 0, {_MAX_PATIENCE} at the most", f"{result}")
    return result


def _vad_filter(chosen: Mapping[str, Any]) -> bool | VoiceActivityModel:
    result = chosen.get("vad_filter")
    if isinstance(result, VoiceActivityModel):
        return result
    return flag("vad_filter", chosen.get("vad_filter", False))


def _number(chosen: Mapping[str, Any], name: str, default: float) -> float:
    result = chosen.get(name, default)
    if not is_number(result) or not isfinite(result):
        raise InputError(name, "a number", described(result))
    return float(result)
