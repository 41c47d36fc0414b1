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
# Incremented when the output of `check_tokenizer` changes.
_CHECK = 2


class Tokenizer(Protocol):
    """Encodes texts by its tokenizer.json, truncated if it has a limit, without padding."""

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Return token ids of each text, which `check_unicode` has checked; ModelFileError.

        Without `special` those of the text alone, without truncation.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text before truncation; errors as `encode`."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of ids; ids without a token have none. Errors as `encode`.

        UnsupportedModelError if the file has no supported decoder.
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
    """Open a sentence encoder's untrusted tokenizer.json.

    In a page the checked file is remembered under its `folder`, if given: on the next visit the
    same bytes need no check, and web/early.js has already made their tokenizer. ModelFileError if
    the file is not sound or has more tokens than the model has embeddings, UnsupportedModelError
    for another kind of tokenizer.
    """
    check = partial(check_tokenizer, tokenizer_json, _PLACE)
    opened = await _remembered(tokenizer_json, max_tokens, folder, check)
    _check_fit(opened, max_tokens, n_embeddings)
    return opened.tokenizer


async def open_made(tokenizer_json: bytes, n_tokens: int, folder: str = "") -> Tokenizer:
    """Open a file that Bascule itself has made, without truncation.

    Remembered as by `open_tokenizer`, if a `folder` is given.
    """
    checked = CheckedTokenizer(tokenizer_json, n_tokens, 0, None)
    return (await _remembered(tokenizer_json, None, folder, lambda: checked)).tokenizer


async def _remembered(
    tokenizer_json: bytes,
    max_tokens: int | None,
    folder: str,
    check: Callable[[], CheckedTokenizer],
) -> OpenedTokenizer:
    """Return a tokenizer that truncates at `max_tokens`: made early, or checked and made now."""
    if not folder or sys.platform != "emscripten":
        checked = check()
    else:
        from bascule.text.tokenizer_browser import remember_checked, take_early

        key = _checked_key(tokenizer_json, max_tokens)
        early = take_early(key)
        if early is not None:
            return early
        checked = check()
        await remember_checked(folder, key, checked, max_tokens)
    tokenizer = await make_tokenizer(checked.json, max_tokens)
    return OpenedTokenizer(tokenizer, checked.n_tokens, checked.n_added_to_text, checked.templates)


def _checked_key(tokenizer_json: bytes, max_tokens: int | None) -> str:
    """Return a key of bytes that this version's check has passed, with their truncation."""
    return f"{__version__} {_CHECK} {hashlib.sha256(tokenizer_json).hexdigest()} {max_tokens}"


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
    """Open a tokenizer of texts alone, and the templates that join one or two of them.

    There is no pair's template if `max_tokens` leave no room for one. Remembered as by
    `open_tokenizer`. Errors as there, and UnsupportedModelError for nested templates.
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
    """Make a tokenizer from a checked tokenizer.json, or one of ours.

    Natively the library is `tokenizers`, in a page `@huggingface/tokenizers`.
    """
    if sys.platform == "emscripten":
        from bascule.text.tokenizer_browser import PageTokenizer

        return await PageTokenizer.from_json(tokenizer_json, max_tokens)
    from bascule.text.tokenizer_native import NativeTokenizer

    return NativeTokenizer.from_json(tokenizer_json, max_tokens)


def no_decoder() -> UnsupportedModelError:
    """Return the error of a tokenizer that cannot decode."""
    return UnsupportedModelError(_PLACE, "it has no decoder that Bascule knows")


def check_unicode(text: str, where: str) -> None:
    """InputError, naming `where`, for a text that UTF-8 cannot encode (a lone surrogate)."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        result = f"a lone surrogate (U+{ord(text[error.start]):04X}) at index {error.start:,}"
        raise InputError(where, "characters that UTF-8 can hold", result) from None
