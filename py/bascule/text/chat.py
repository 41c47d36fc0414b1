"""Chat templates: a conversation as the text, or the token ids, that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bascule.errors import InputError, ModelFileError
from bascule.text import check_unicode
from bascule.text.jinja_library import provide_jinja
from bascule.text.language import LanguageTokenizer
from bascule.text.marks import Marker, texts_in, without
from bascule.text.template_limits import TemplateFault, TemplateRefusal

if TYPE_CHECKING:
    from bascule.text.template_renderer import Renderer

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
_MAX_DEPTH = 16
# The integers that every JSON reader represents exactly.
_MAX_NUMBER = 2**53

Message = Mapping[str, object]


async def open_chat_template(tokenizer: LanguageTokenizer, place: str) -> ChatTemplate:
    """Open the template in the tokenizer's file, named by `place`; ModelFileError if unsound."""
    source = tokenizer.vocabulary.chat_template
    if source is None:
        hint = "Give the model plain text, or use the variant that was trained to chat (Instruct)."
        raise ModelFileError(place, "it has no chat template", hint=hint)
    try:
        renderer = _renderer(source)
    except TemplateFault as fault:
        raise _unsound(place, fault) from None
    return ChatTemplate(renderer, tokenizer, place)


def _renderer(source: str) -> Renderer:
    provide_jinja()
    from bascule.text.template_renderer import Renderer  # not before: only chats need Jinja

    return Renderer(source)


def _unsound(place: str, fault: TemplateFault) -> ModelFileError:
    hint = "Use the model from its makers, or give it plain text."
    return ModelFileError(place, f"its chat template cannot be used: {fault}", hint=hint)


class ChatTemplate:
    """Renders conversations; contents of messages never become control tokens (see marks.py)."""

    def __init__(self, renderer: Renderer, tokenizer: LanguageTokenizer, place: str) -> None:
        self._renderer = renderer
        self._tokenizer = tokenizer
        self._place = place
        self._marker = Marker(tokenizer.vocabulary.control)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str:
        """Return the conversation as one text, for people; for a model use `encode`.

        InputError if messages are invalid or the template rejects them, ModelFileError if it fails.
        """
        return without(*self._marked(messages, add_generation_prompt, tools))

    def encode(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> list[int]:
        """Return the conversation as token ids; errors as `render`."""
        text, mark = self._marked(messages, add_generation_prompt, tools)
        parts = [
            without(part, mark) if isinstance(part, str) else part
            for part in self._tokenizer.split(text)
        ]
        return self._tokenizer.encode_parts(parts)

    def _marked(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] | None,
    ) -> tuple[str, str]:
        """Return the text with marks in it, and the mark."""
        _check(messages)
        if tools is not None:
            _check_value(tools, "tools")
        mark = self._marker.choose(texts_in([messages, tools]))
        vocabulary = self._tokenizer.vocabulary
        variables = {
            "messages": [self._mark(message, mark) for message in messages],
            "tools": None if tools is None else self._marker.mark_all(tools, mark),
            "add_generation_prompt": bool(add_generation_prompt),
            "bos_token": vocabulary.text(vocabulary.bos),
            "eos_token": vocabulary.text(vocabulary.eos),
        }
        try:
            return self._renderer.render(variables), mark
        except TemplateRefusal as refusal:
            hint = "Give the messages in the order that this model knows."
            expected = "what the model's chat template takes"
            raise InputError("messages", expected, f"{refusal}", hint=hint) from None
        except TemplateFault as fault:
            if all(isinstance(message.get("content"), str) for message in messages):
                raise _unsound(self._place, fault) from None
            expected = "content of text, if this model's chat template takes no other"
            raise InputError("messages", expected, f"a template that fails: {fault}") from None

    def _mark(self, message: Message, mark: str) -> dict[str, object]:
        # A role is one of ROLES, and templates may turn it into a control token.
        return {
            key: value if key == "role" else self._marker.mark_all(value, mark)
            for key, value in message.items()
        }


def _check(messages: Sequence[Message]) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise InputError("messages", "a list of messages", type(messages).__name__)
    if not messages:
        raise InputError("messages", "a list of one or more messages", "an empty one")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise InputError(where, "a mapping", type(message).__name__)
        role = message.get("role")
        if role not in ROLES:
            raise InputError(f"{where}['role']", f"one of {', '.join(ROLES)}", f"{role!r:.40}")
        if "content" not in message and "tool_calls" not in message:
            raise InputError(where, "a 'content'", f"{', '.join(map(str, message))[:80]}")
        _check_value(message, where)


def _check_value(value: object, where: str, depth: int = 0) -> None:
    """InputError unless it is JSON that natively and in a page means the same."""
    if depth > _MAX_DEPTH:
        raise InputError(where, f"at most {_MAX_DEPTH} levels", "more")
    if isinstance(value, str):
        check_unicode(value, where)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InputError(where, "keys of text", f"{key!r:.40}")
            _check_value(key, where)
            _check_value(each, f"{where}[{key!r:.40}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _check_value(each, f"{where}[{index}]", depth + 1)
    elif isinstance(value, (int, float)):
        if not -_MAX_NUMBER <= value <= _MAX_NUMBER:
            raise InputError(where, "a number up to 2**53", "one beyond")
    elif value is not None:
        raise InputError(where, "text, numbers, lists or mappings", type(value).__name__)
