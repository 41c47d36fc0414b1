"""From text to token ids, by a well-kept library on each side."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bascule import __version__
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.text.pairs import Templates, n_special
from bascule.text.tokenizer_check import CheckedTokenizer, check_tokenizer

_PLACE = "tokenizer.json"
# Raised when what `check_tokenizer` writes of a file changes.
_CHECK = 2


class Tokenizer(Protocol):
    """Encodes texts as its tokenizer.json says, cut at a number of tokens if at all, not padded."""

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text, which `check_unicode` has seen; ModelFileError.

        Without `special` those of the text alone, not cut.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut; errors as `encode`."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """The text of ids; those without a token have none. Errors as `encode`.

        UnsupportedModelError where the file has no decoder that Bascule knows.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenedTokenizer:
    """A tokenizer, and what `CheckedTokenizer` says of its file."""

    tokenizer: Tokenizer
    n_tokens: int
    n_added_to_text: int
    templates: Templates | None


async def open_tokenizer(
    tokenizer_json: bytes,
    max_tokens: int,
    *,
    n_embeddings: int | None = None,
    folder: str = "",
) -> Tokenizer:
    """A tokenizer from a sentence encoder's tokenizer.json, none of which is trusted.

    In a page the checked file is remembered under its `folder`, if that is given: on the next visit
    the same bytes need no check, and web/early.js has made their tokenizer. ModelFileError if the
    file is not sound or has more tokens than the model has embeddings, UnsupportedModelError for a
    tokenizer of another kind.
    """
    check = partial(check_tokenizer, tokenizer_json, _PLACE)
    opened = await _remembered(tokenizer_json, max_tokens, folder, check)
    _check_fit(opened, max_tokens, n_embeddings)
    return opened.tokenizer


async def open_made(tokenizer_json: bytes, n_tokens: int, folder: str = "") -> Tokenizer:
    """A tokenizer of a file that Bascule has made, which cuts nothing off.

    Remembered as `open_tokenizer` does, where a `folder` is given.
    """
    checked = CheckedTokenizer(tokenizer_json, n_tokens, 0, None)
    return (await _remembered(tokenizer_json, None, folder, lambda: checked)).tokenizer


async def _remembered(
    tokenizer_json: bytes,
    most_tokens: int | None,
    folder: str,
    check: Callable[[], CheckedTokenizer],
) -> OpenedTokenizer:
    """A tokenizer that truncates at `most_tokens`: one that was made early, or checked and made."""
    if not folder or sys.platform != "emscripten":
        checked = check()
    else:
        from bascule.text.tokenizer_browser import remember_checked, take_early

        key = _checked_key(tokenizer_json, most_tokens)
        early = take_early(key)
        if early is not None:
            return early
        checked = check()
        await remember_checked(folder, key, checked, most_tokens)
    tokenizer = await make_tokenizer(checked.json, most_tokens)
    return OpenedTokenizer(tokenizer, checked.n_tokens, checked.n_added_to_text, checked.templates)


def _checked_key(tokenizer_json: bytes, most_tokens: int | None) -> str:
    """Equal for bytes that this version's check has passed, cut at the same length."""
    return f"{__version__} {_CHECK} {hashlib.sha256(tokenizer_json).hexdigest()} {most_tokens}"


def _check_fit(opened: OpenedTokenizer, max_tokens: int, n_embeddings: int | None) -> None:
    n_tokens, n_added = opened.n_tokens, opened.n_added_to_text
    if n_embeddings is not None and n_tokens > n_embeddings:
        problem = f"it has {n_tokens:,} tokens, and the model {n_embeddings:,} embeddings"
        raise ModelFileError(_PLACE, problem)
    if max_tokens <= n_added:
        problem = f"it adds {n_added:,} tokens to each text, of {max_tokens:,} at most"
        raise ModelFileError(_PLACE, problem)


async def open_pair_tokenizer(
    tokenizer_json: bytes,
    max_tokens: int,
    *,
    n_embeddings: int,
    folder: str = "",
) -> tuple[Tokenizer, Templates]:
    """A tokenizer of texts alone, and the templates that join one or two of them.

    Without a pair's template where `max_tokens` leave it no room. Remembered as `open_tokenizer`
    has it. Errors as there, and UnsupportedModelError for templates in each other.
    """
    check = partial(check_tokenizer, tokenizer_json, _PLACE)
    opened = await _remembered(tokenizer_json, None, folder, check)
    if opened.templates is None:
        raise UnsupportedModelError(_PLACE, "several steps of its post_processor add tokens")
    _check_fit(opened, max_tokens, n_embeddings)
    templates = opened.templates
    if templates.pair is not None and n_special(templates.pair) >= max_tokens:
        templates = replace(templates, pair=None)
    return opened.tokenizer, templates


async def make_tokenizer(tokenizer_json: bytes, max_tokens: int | None) -> Tokenizer:
    """A tokenizer from a tokenizer.json that was checked, or is ours.

    Natively the library is `tokenizers`, in a page `@huggingface/tokenizers`.
    """
    if sys.platform == "emscripten":
        from bascule.text.tokenizer_browser import PageTokenizer

        return await PageTokenizer.from_json(tokenizer_json, max_tokens)
    from bascule.text.tokenizer_native import NativeTokenizer

    return NativeTokenizer.from_json(tokenizer_json, max_tokens)


def no_decoder() -> UnsupportedModelError:
    """The error of a tokenizer that cannot decode."""
    return UnsupportedModelError(_PLACE, "it has no decoder that Bascule knows")


def check_unicode(text: str, where: str) -> None:
    """InputError, which names `where`, for a text that UTF-8 cannot hold (a lone surrogate)."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        result = f"half a character (U+{ord(text[error.start]):04X}) at index {error.start:,}"
        raise InputError(where, "characters that UTF-8 can hold", result) from None
