"""The options of a generation: what callers may write, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, cast

from bascule.base.arguments import described, did_you_mean, one_of, strings, whole_number
from bascule.errors import InputError
from bascule.tasks.sampler import Sampling
from bascule.text.streaming import StopStrings

Overflow = Literal["error", "slide"]

_SAMPLING = tuple(field.name for field in fields(Sampling))
_MAX_NEW_TOKENS = 256
_STEPS_IN_FLIGHT = 8


class StreamOptions(TypedDict, total=False):
    """Options of `LanguageModel.stream`; None is the same as leaving an option out.

    `max_tokens` is another name of `max_new_tokens`, and settings of `Sampling` may be given
    directly instead of `sampling`.
    """

    max_new_tokens: int | None
    max_tokens: int | None
    sampling: Sampling | Mapping[str, Any] | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    penalty_window: int | None
    seed: int | None
    stop: str | Iterable[str] | None
    overflow: Overflow | None
    steps_in_flight: int | None
    progress: Callable[[int, int], None] | None


OPTIONS = tuple(StreamOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation's checked options."""

    max_new_tokens: int
    sampling: Sampling
    settings: bytes  # `sampling` packed, so that one seed serves the whole generation
    stop: tuple[str, ...]
    slide: bool
    steps_in_flight: int
    progress: Callable[[int, int], None] | None


def read_options(options: Mapping[str, Any]) -> GenerationRequest:
    """Check `StreamOptions`; InputError for an unknown or invalid one."""
    for name in options:
        if name not in OPTIONS:
            expected = f"some of {', '.join(OPTIONS)}"
            raise InputError("options", expected, repr(name), hint=did_you_mean(name, OPTIONS))
    chosen = {name: value for name, value in options.items() if value is not None}
    stop = tuple(strings("stop", chosen.get("stop", ())))
    StopStrings(stop)  # whose error is to come before any work
    progress: Any = chosen.get("progress")
    if not (progress is None or callable(progress)):
        raise InputError("progress", "a function of (done, total)", described(progress))
    sampling = _sampling(chosen)
    return GenerationRequest(
        _max(chosen),
        sampling,
        sampling.pack(),
        stop,
        one_of("overflow", chosen.get("overflow", "error"), ("error", "slide")) == "slide",
        whole_number("steps_in_flight", chosen.get("steps_in_flight", _STEPS_IN_FLIGHT), 1, 64),
        cast(Callable[[int, int], None] | None, progress),
    )


def _max(chosen: Mapping[str, Any]) -> int:
    results = [name for name in ("max_new_tokens", "max_tokens") if name in chosen]
    if len(results) == 2:
        raise InputError("max_tokens", "no max_new_tokens beside it", "both")
    return whole_number(results[0], chosen[results[0]], 1) if results else _MAX_NEW_TOKENS


def _sampling(chosen: Mapping[str, Any]) -> Sampling:
    settings = {name: chosen[name] for name in _SAMPLING if name in chosen}
    sampling = chosen.get("sampling")
    if sampling is None:
        return Sampling(**settings)
    if settings:
        raise InputError("sampling", "no settings beside it", ", ".join(settings))
    if isinstance(sampling, Sampling):
        return sampling
    if not isinstance(sampling, Mapping):
        raise InputError("sampling", "a Sampling, or a dict of its settings", described(sampling))
    for name in sampling:
        if name not in _SAMPLING:
            expected = f"some of {', '.join(_SAMPLING)}"
            hint = did_you_mean(name, _SAMPLING)
            raise InputError("sampling", expected, described(name), hint=hint)
    return Sampling(**{name: value for name, value in sampling.items() if value is not None})
