"""The tokenizer of a language model: one vocabulary, over a library that merges bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Protocol

from bascule.base.arguments import token_ids
from bascule.errors import InputError
from bascule.text import Tokenizer, check_unicode, open_made
from bascule.text.spaced import Pieces, SpacedPieces
from bascule.text.token_finder import TokenCutter
from bascule.text.vocabulary import BYTE_OF, Vocabulary


class TokenDecoder(Protocol):
    """Converts token ids to bytes; one of `ends` ends a text."""

    @property
    def ends(self) -> frozenset[int]:
        """See `TokenDecoder`."""
        ...

    @property
    def strips(self) -> bool:
        """Whether the first space of a decoded text was added by the tokenizer."""
        ...

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """Return the bytes of tokens, those of control tokens on request; InputError."""
        ...


async def open_text_tokenizer(vocabulary: Vocabulary, folder: str = "") -> LanguageTokenizer:
    """Open a tokenizer from a checked vocabulary.

    In a page it is remembered under its model's `folder`, if given, and made before Python is up on
    the next visit.
    """
    plain = await open_made(vocabulary.tokenizer_json(), len(vocabulary.tokens), folder)
    return LanguageTokenizer(vocabulary, plain)


class LanguageTokenizer:
    """A `TokenDecoder` that also converts text to token ids, without adding or truncating.

    It finds control tokens itself, so that the rule is the same everywhere. `vocabulary` is the
    file's, `n_tokens` the number of ids.
    """

    def __init__(self, vocabulary: Vocabulary, plain: Tokenizer) -> None:
        self.vocabulary = vocabulary
        self.n_tokens = len(vocabulary.tokens)
        self._plain = plain
        strips = vocabulary.strips_before, vocabulary.strips_after
        self._cutter = TokenCutter(vocabulary.control, *strips)
        self._silent = frozenset(vocabulary.control.values())
        self._raw = frozenset(vocabulary.user_defined.values()) | self._silent | vocabulary.unused
        self._bytes: dict[int, bytes] = {}
        spaced = vocabulary.pre if isinstance(vocabulary.pre, SpacedPieces) else None
        self._spaced = spaced
        self.strips = spaced is not None and spaced.stripped
        self._pieces = spaced and Pieces(
            spaced,
            vocabulary.tokens,
            TokenCutter(vocabulary.user_defined, *strips),
            vocabulary.left_out,
        )

    @property
    def ends(self) -> frozenset[int]:
        return self.vocabulary.ends

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return token ids; with `special` control tokens are parsed, otherwise they are plain
        text.

        InputError for a text that UTF-8 cannot encode.
        """
        return self.encode_parts(self.split(text) if special else [text])

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of tokens, U+FFFD for invalid bytes; InputError for an invalid id."""
        data = self.decode_bytes(token_ids("ids", ids, self.n_tokens), skip_special=skip_special)
        text = data.decode(errors="replace")
        return text.removeprefix(" ") if self.strips else text

    def count(self, text: str) -> int:
        """Return the number of tokens of a text; errors as `encode`."""
        return len(self.encode(text))

    def split(self, text: str) -> list[str | int]:
        """Split a text at control tokens, leftmost and longest first, into texts and ids."""
        return list(self._cutter.parts(text))

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Return token ids of texts without control tokens, with ids between them.

        One call of the library encodes them all.
        """
        for part in parts:
            if isinstance(part, str):
                check_unicode(part, "text")
        pieces = parts if self._pieces is None else self._cut(self._pieces, parts)
        texts = [piece for piece in pieces if isinstance(piece, str)]
        encoded = iter(self._plain.encode(texts))
        rows = ([piece] if isinstance(piece, int) else next(encoded) for piece in pieces)
        return list(chain.from_iterable(rows))

    def _cut(self, pieces: Pieces, parts: Sequence[str | int]) -> list[str | int]:
        results: list[str | int] = []
        for part in parts:
            results += [part] if isinstance(part, int) else pieces.of(part, first=not results)
        return results

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        shown = (i for i in ids if not (skip_special and i in self._silent))
        return b"".join(map(self._bytes_of, shown))

    def _bytes_of(self, token: int) -> bytes:
        known = self._bytes.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_tokens:
            expected = f"a number from 0 to {self.n_tokens - 1:,}"
            raise InputError("token id", expected, f"{token:,}")
        text = self.vocabulary.tokens[token]
        if self._spaced is not None and token not in self._silent:
            result = self._spaced.bytes_of(text)
        elif token in self._raw or not all(character in BYTE_OF for character in text):
            result = text.encode()
        else:
            result = bytes(BYTE_OF[character] for character in text)
        self._bytes[token] = result
        return result
