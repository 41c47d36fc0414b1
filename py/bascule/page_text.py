"""What a page asks of a language model: options and prompts as JSON, pieces in few messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

from bascule.errors import InputError
from bascule.model.language import TextStream
from bascule.model.sampler import GREEDY, Sampling

_SAMPLING = tuple(field.name for field in fields(Sampling))
_WHOLE = ("max_new_tokens", "steps_in_flight")
_OTHERS = ("greedy", "stop", "overflow")
# Between two messages: an eye sees no difference, and the page's thread has fewer to draw.
_EVERY_S = 0.03


def options_from_json(text: str) -> dict[str, Any]:
    """Options of `LanguageModel.stream` from a JSON object; null is as if it were not there.

    Sampling settings stand beside the others, and `greedy` in place of them. InputError for what
    is unknown or of another kind.
    """
    told = json.loads(text)
    if not isinstance(told, dict):
        raise InputError("options", "an object", type(told).__name__)
    given = {k: v for k, v in cast(dict[str, Any], told).items() if v is not None}
    known = (*_SAMPLING, *_WHOLE, *_OTHERS)
    if unknown := given.keys() - set(known):
        raise InputError("options", f"some of {', '.join(known)}", ", ".join(sorted(unknown)))
    for name in _WHOLE:
        if name in given and type(given[name]) is not int:
            raise InputError(name, "a whole number", f"{given[name]!r:.40}")
    if not isinstance(given.get("stop", []), list):
        raise InputError("stop", "a list of strings", f"{given['stop']!r:.40}")
    sampling = {name: given.pop(name) for name in _SAMPLING if name in given}
    greedy = given.pop("greedy", False)
    if not isinstance(greedy, bool):
        raise InputError("greedy", "true or false", f"{greedy!r:.40}")
    if greedy and sampling:
        raise InputError("greedy", "no sampling settings beside it", ", ".join(sampling))
    return {**given, "sampling": GREEDY if greedy else Sampling(**sampling)}


def prompt_from_json(text: str) -> str | list[int]:
    """A prompt as text, or as token ids."""
    told = json.loads(text)
    if isinstance(told, str):
        return told
    return ids_of(told)


def ids_of(told: object) -> list[int]:
    """Token ids out of what a page gave; InputError if it is something else."""
    listed = cast(list[object], told) if isinstance(told, list) else [None]
    if not all(type(token) is int for token in listed):
        raise InputError("prompt", "text, or a list of token ids", f"{told!r:.40}")
    return cast(list[int], listed)


async def read_out(stream: TextStream, report: Callable[[str, int], None]) -> None:
    """Hand a stream's pieces to `report(text, n_tokens)`; n_tokens counts all that came so far.

    Pieces that come together go together. Cancelling ends the stream, and tells what had come.
    """
    loop = asyncio.get_running_loop()
    waiting: list[str] = []
    timer: asyncio.Handle | None = None
    told = loop.time() - _EVERY_S

    def flush() -> None:
        nonlocal timer, told
        timer, told = None, loop.time()
        text = "".join(waiting)
        waiting.clear()
        if text:
            report(text, len(stream.result.ids))

    try:
        async with stream:
            async for piece in stream:
                waiting.append(piece)
                if timer is None:
                    timer = loop.call_later(max(0.0, told + _EVERY_S - loop.time()), flush)
    finally:
        if timer is not None:
            timer.cancel()
        flush()
