"""The tokenizer of a text-to-text model: SentencePiece's pieces, with an end after each text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from bascule.base.arguments import token_ids
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text import Tokenizer, check_unicode, make_tokenizer
from bascule.text.tokenizer_check import check_tokenizer

_SPACE = "▁"


async def open_piece_tokenizer(
    tokenizer_json: bytes, *, n_embeddings: int, ends: frozenset[int], place: str
) -> PieceTokenizer:
    """Open an untrusted tokenizer.json with Unigram pieces.

    ModelFileError if it is not sound or has more tokens than the model has embeddings,
    UnsupportedModelError for another kind.
    """
    checked = check_tokenizer(tokenizer_json, place)
    if checked.n_tokens > n_embeddings:
        problem = f"it has {checked.n_tokens:,} tokens, and the model {n_embeddings:,} embeddings"
        raise ModelFileError(place, problem)
    read = json.loads(checked.json)
    model = read["model"]
    if model["type"] != "Unigram":
        raise UnsupportedModelError(place, f"its tokenizer is a {model['type']}, not a Unigram")
    pieces = {i: piece.replace(_SPACE, " ") for i, (piece, _) in enumerate(model["vocab"])}
    added = {each["id"]: each for each in read["added_tokens"]}
    pieces |= {number: each["content"] for number, each in added.items()}
    special = frozenset(number for number, each in added.items() if each["special"])
    plain = await make_tokenizer(checked.json, None)
    return PieceTokenizer(plain, pieces, special | ends, ends, n_embeddings)


class PieceTokenizer:
    """Converts text to token ids and back. One of `ends` ends a text."""

    strips = True  # the first space of a decoded text is not the text's own

    def __init__(
        self,
        plain: Tokenizer,
        pieces: Mapping[int, str],
        special: frozenset[int],
        ends: frozenset[int],
        n_tokens: int,
    ) -> None:
        self.ends = ends
        self.n_tokens = n_tokens
        self._plain = plain
        self._pieces = pieces
        self._special = special

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return token ids, with the end that the model expects unless not `special`.

        InputError for a text that UTF-8 cannot encode.
        """
        check_unicode(text, "text")
        return self._plain.encode([text], special=special)[0]

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of tokens, that of special ones only on request; InputError."""
        data = self.decode_bytes(ids, skip_special=skip_special)
        return data.decode().removeprefix(" ")

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, including its end; InputError."""
        return len(self.encode(text))

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """Return the UTF-8 of tokens; an id that only pads the embedding has none. InputError."""
        result = token_ids("ids", ids, self.n_tokens)
        hidden: frozenset[int] = self._special if skip_special else frozenset()
        return "".join(self._pieces.get(i, "") for i in result if i not in hidden).encode()
