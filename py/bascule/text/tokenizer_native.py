"""Tokenization in CPython, by Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bascule.errors import ModelFileError


class NativeTokenizer:
    """See `Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def from_json(cls, data: bytes, max_tokens: int | None) -> NativeTokenizer:
        """Read tokenizer.json; its own padding and truncation give way to ours."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises bare Exception
            raise ModelFileError("tokenizer.json", f"it is not sound ({error})") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if max_tokens is not None:
            tokenizer.enable_truncation(max_length=max_tokens)
        return cls(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
