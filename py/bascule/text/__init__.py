"""From text to token ids, by a well-kept library on each side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Encodes texts as its tokenizer.json says, cut at a number of tokens if at all, not padded."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...


async def open_tokenizer(tokenizer_json: bytes, max_tokens: int | None) -> Tokenizer:
    """A tokenizer from tokenizer.json; ModelFileError if that is not sound.

    Natively the library is `tokenizers`, in a page `@huggingface/tokenizers`.
    """
    if sys.platform == "emscripten":
        from bascule.text.tokenizer_browser import PageTokenizer

        return await PageTokenizer.from_json(tokenizer_json, max_tokens)
    from bascule.text.tokenizer_native import NativeTokenizer

    return NativeTokenizer.from_json(tokenizer_json, max_tokens)
