"""A page's requests to a language model: options and prompts as JSON, pieces in few messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

from bascule.base.arguments import did_you_mean
from bascule.errors import InputError
from bascule.tasks.generating import TextStream
from bascule.tasks.options import OPTIONS, read_options
from bascule.tasks.sampler import GREEDY, Sampling

_SAMPLING = tuple(field.name for field in fields(Sampling))
_KNOWN = ("greedy", *(name for name in OPTIONS if name != "progress"))
# Time between two messages: imperceptible, and the page's thread has less to draw.
_EVERY_S = 0.03


def options_from_json(text: str) -> dict[str, Any]:
    """Parse options of `LanguageModel.stream` from a JSON object; null is the same as leaving it
    out.

    They are those of `StreamOptions`, and `greedy` in place of sampling settings. InputError for
    unknown or invalid ones.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise InputError("options", "an object", type(record).__name__)
    chosen = {k: v for k, v in cast(dict[str, Any], record).items() if v is not None}
    greedy = chosen.pop("greedy", False)
    if not isinstance(greedy, bool):
        raise InputError("greedy", "true or false", f"{greedy!r:.40}")
    settings = [name for name in chosen if name == "sampling" or name in _SAMPLING]
    if greedy and settings:
        raise InputError("greedy", "no sampling settings beside it", ", ".join(settings))
    if unknown := [name for name in chosen if name not in _KNOWN]:
        hint = did_you_mean(unknown[0], _KNOWN)
        raise InputError("options", f"some of {', '.join(_KNOWN)}", ", ".join(unknown), hint=hint)
    read_options(chosen)  # whose errors come before any work
    return {**chosen, "sampling": GREEDY} if greedy else chosen


def prompt_from_json(text: str) -> str | list[int]:
    """Parse a prompt: text, or token ids."""
    prompt = json.loads(text)
    if isinstance(prompt, str):
        return prompt
    return ids_of(prompt)


def ids_of(value: object) -> list[int]:
    """Return token ids from a page's value; InputError if it is something else."""
    listed = cast(list[object], value) if isinstance(value, list) else [None]
    if not all(type(token) is int for token in listed):
        raise InputError("prompt", "text, or a list of token ids", f"{value!r:.40}")
    return cast(list[int], listed)


async def read_out(stream: TextStream, report: Callable[[str, int], None]) -> None:
    """Pass a stream's pieces to `report(text, n_tokens)`; n_tokens counts all so far.

    Pieces that arrive together are passed together. Cancelling ends the stream, and reports what
    had arrived.
    """
    loop = asyncio.get_running_loop()
    waiting: list[str] = []
    timer: asyncio.Handle | None = None
    reported = loop.time() - _EVERY_S

    def flush() -> None:
        nonlocal timer, reported
        timer, reported = None, loop.time()
        text = "".join(waiting)
        waiting.clear()
        if text:
            report(text, len(stream.result.ids))

    try:
        async with stream:
            async for piece in stream:
                waiting.append(piece)
                if timer is None:
                    timer = loop.call_later(max(0.0, reported + _EVERY_S - loop.time()), flush)
    finally:
        if timer is not None:
            timer.cancel()
        flush()
