"""Convert messages of OpenAI's clients to those that chat templates take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bascule.base.arguments import described
from bascule.errors import InputError


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the messages with text content: text parts are joined by newlines, None is "".

    InputError for a part of another kind. `ChatTemplate` checks everything else.
    """
    if isinstance(messages, str | bytes | Mapping) or not hasattr(messages, "__iter__"):
        raise InputError("messages", "a list of messages", described(messages))
    return [_plain(message, f"messages[{at}]") for at, message in enumerate(messages)]


def _plain(message: Any, where: str) -> Any:
    if not isinstance(message, Mapping) or "content" not in message:
        return message
    content = message["content"]
    if content is None and not message.get("tool_calls"):
        return {**message, "content": ""}
    if isinstance(content, list | tuple):
        place = f"{where}['content']"
        texts = [_text_of(part, f"{place}[{at}]") for at, part in enumerate(content)]
        return {**message, "content": "\n".join(texts)}
    return message


def _text_of(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text":
        if isinstance(part.get("text"), str):
            return part["text"]
        raise InputError(f"{where}['text']", "a string", described(part.get("text")))
    result = described(part.get("type") if isinstance(part, Mapping) else part)
    raise InputError(where, "a part of type 'text'", result)
