"""From text to token ids, by a well-kept library on each side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from bascule.errors import InputError, ModelFileError
from bascule.text.tokenizer_check import check_tokenizer


class Tokenizer(Protocol):
    """Encodes texts as its tokenizer.json says, cut at a number of tokens if at all, not padded."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, which `check_unicode` has seen; ModelFileError."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut; errors as `encode`."""
        ...


async def open_tokenizer(
    tokenizer_json: bytes,
    max_tokens: int,
    *,
    n_embeddings: int | None = None,
    place: str = "tokenizer.json",
) -> Tokenizer:
    """A tokenizer from a sentence encoder's tokenizer.json, none of which is trusted.

    ModelFileError if that is not sound or has more tokens than the model has embeddings,
    UnsupportedModelError for a tokenizer of another kind.
    """
    checked = check_tokenizer(tokenizer_json, place)
    if n_embeddings is not None and checked.n_tokens > n_embeddings:
        told = f"it has {checked.n_tokens:,} tokens, and the model {n_embeddings:,} embeddings"
        raise ModelFileError(place, told)
    if max_tokens <= checked.n_added_to_text:
        told = f"it adds {checked.n_added_to_text:,} tokens to each text, of {max_tokens:,} at most"
        raise ModelFileError(place, told)
    return await make_tokenizer(checked.json, max_tokens)


async def make_tokenizer(tokenizer_json: bytes, max_tokens: int | None) -> Tokenizer:
    """A tokenizer from a tokenizer.json that was checked, or is ours.

    Natively the library is `tokenizers`, in a page `@huggingface/tokenizers`.
    """
    if sys.platform == "emscripten":
        from bascule.text.tokenizer_browser import PageTokenizer

        return await PageTokenizer.from_json(tokenizer_json, max_tokens)
    from bascule.text.tokenizer_native import NativeTokenizer

    return NativeTokenizer.from_json(tokenizer_json, max_tokens)


def check_unicode(text: str, where: str) -> None:
    """InputError, which names `where`, for a text that UTF-8 cannot hold (a lone surrogate)."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        found = f"half a character (U+{ord(text[error.start]):04X}) at index {error.start:,}"
        raise InputError(where, "characters that UTF-8 can hold", found) from None
