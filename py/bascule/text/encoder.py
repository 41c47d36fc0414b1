"""The tokenizer of a model that reads texts and writes none."""

from __future__ import annotations

from collections.abc import Iterable

from bascule.base.arguments import described, token_ids
from bascule.errors import InputError
from bascule.text import Tokenizer, check_unicode


class EncoderTokenizer:
    """Converts text to token ids and back. `n_tokens` is the number of ids that the model reads."""

    def __init__(self, plain: Tokenizer, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self._plain = plain

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the ids of a text with the special tokens around it.

        Those of an embedding model are truncated at its `max_tokens`. Without `special` the ids of
        the text alone, without truncation. InputError for anything but a string that UTF-8 can
        encode.
        """
        return self._plain.encode([_checked(text)], special=special)[0]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of tokens, that of special ones only on request.

        A tokenizer that lowercases or drops accents returns such a text. An id that only pads the
        embedding has no text. InputError for an invalid token id, UnsupportedModelError if the
        tokenizer.json has no decoder of WordPiece, byte-level BPE or SentencePiece.
        """
        result = token_ids("ids", ids, self.n_tokens)
        return self._plain.decode(result, skip_special=skip_special)

    def count(self, text: str) -> int:
        """Return the tokens of a text before truncation, including special ones; InputError."""
        return self._plain.count([_checked(text)])[0]


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise InputError("text", "a string", described(text))
    check_unicode(text, "text")
    return text
