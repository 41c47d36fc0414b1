"""Tokenization in CPython, by Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from bascule.errors import ModelFileError
from bascule.text import no_decoder


class NativeTokenizer:
    """See `Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def from_json(cls, data: bytes, max_tokens: int | None) -> NativeTokenizer:
        """Read tokenizer.json; our padding and truncation replace its own."""
        from tokenizers import Tokenizer

        with _faults("it is not sound"):
            tokenizer = Tokenizer.from_buffer(data)
            tokenizer.no_padding()
            tokenizer.no_truncation()
            if max_tokens is not None:
                tokenizer.enable_truncation(max_length=max_tokens)
        return cls(tokenizer)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        with _faults("it fails on a text"):
            result = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
            if special:
                return [encoding.ids for encoding in result]
            # The library truncates these, too; the parts that it cut off follow.
            return [[*e.ids, *chain.from_iterable(p.ids for p in e.overflowing)] for e in result]

    def count(self, texts: Sequence[str]) -> list[int]:
        """See `Tokenizer.count`. Each part that was cut off has the special tokens again."""
        with _faults("it fails on a text"):
            result = self._tokenizer.encode_batch(list(texts))
            return [
                len(e) + sum(len(part) - sum(part.special_tokens_mask) for part in e.overflowing)
                for e in result
            ]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        if self._tokenizer.decoder is None:
            raise no_decoder()
        with _faults("it fails on token ids"):
            decoded = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        # CLIP's: a word's end is part of its last token, and a space in the text.
        suffix = getattr(self._tokenizer.model, "end_of_word_suffix", None)
        if suffix:
            decoded = decoded.replace(suffix, " ")
            decoded = decoded.strip(_JS_BLANKS) if skip_special else decoded
        return decoded


# What JavaScript's trim() removes, and so the page's library; str.strip() also removes U+001C to
# U+001F.
_JS_BLANKS = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)


@contextmanager
def _faults(what: str) -> Generator[None, None, None]:
    """ModelFileError for any error of the library: a bare Exception, or a panic of Rust's."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # no subclass of Exception
        if not panic and not isinstance(error, Exception):
            raise
        raise ModelFileError("tokenizer.json", f"{what} ({str(error)[:200]})") from None
