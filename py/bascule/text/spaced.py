"""SentencePiece's tokenizers: spaces are "▁" in tokens, unknown characters are bytes.

Texts are cut at user-defined tokens and written with "▁" here, so that only the model is left to
the library on either side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bascule.text.token_finder import TokenCutter

SPACE = "\u2581"
Prefix = Literal["never", "first", "always"]
_WORD = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class SpacedPieces:
    """How texts become pieces for the model, and what decoding drops.

    A space is added before the `first` of the texts around tokens, `always`, or `never`; with
    `once` not before one that has it. With `splits` the model sees one word at a time. Decoded
    texts lose their first space if they are `stripped`. A Unigram has the `scores` of its first
    tokens; it does not know later ones. `unknown` is the id of what neither a token nor, with
    `to_bytes`, bytes spell.
    """

    prefix: Prefix
    once: bool = False
    splits: bool = False
    stripped: bool = False
    to_bytes: bool = True
    unknown: int | None = None
    fuses_unknown: bool = True
    whole_words_first: bool = False
    scores: tuple[float, ...] | None = None

    def model(
        self, tokens: Sequence[str], left_out: frozenset[int], merges: Sequence[str]
    ) -> dict[str, Any]:
        """Return the model of a tokenizer.json, in which no text spells the `left_out` tokens."""
        if self.scores is not None:
            # No piece contains a space: it is "▁" there.
            hidden = left_out | self._byte_ids(tokens)
            named = (f" {i}" if i in hidden else text for i, text in enumerate(tokens))
            vocab = [list(pair) for pair in zip(named, self.scores, strict=False)]
            fallback = {"byte_fallback": False}
            return {"type": "Unigram", "unk_id": self.unknown, **fallback, "vocab": vocab}
        unknown = None if self.to_bytes else self.unknown
        vocabulary = {text: i for i, text in enumerate(tokens) if i not in left_out or i == unknown}
        return {
            "type": "BPE",
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": self.fuses_unknown,
            "byte_fallback": self.to_bytes,
            "ignore_merges": self.whole_words_first,
            "vocab": vocabulary,
            "merges": list(merges),
        }

    def _byte_ids(self, tokens: Sequence[str]) -> frozenset[int]:
        known = frozenset(BYTES if self.to_bytes else ())
        return frozenset(i for i, text in enumerate(tokens) if text in known)

    def unknown_runs(
        self, tokens: Sequence[str], left_out: frozenset[int]
    ) -> re.Pattern[str] | None:
        """Return a pattern of characters without a token, for a Unigram that encodes them as bytes.

        The page's library has no bytes for a Unigram. ValueError for a model that has a character
        only in longer tokens: whether it is unknown depends on its neighbours.
        """
        if self.scores is None or not self.to_bytes:
            return None
        hidden = left_out | self._byte_ids(tokens)
        pieces = [text for i, text in enumerate(tokens[: len(self.scores)]) if i not in hidden]
        known = set("".join(pieces))
        if alone := known.difference(pieces):
            raise ValueError(f"its character {min(alone)!r} is not a token of its own")
        return re.compile(f"([^{re.escape(''.join(sorted(known)))}]+)")

    def bytes_of(self, text: str) -> bytes:
        """Return the bytes of a token that is not a control token."""
        byte = _BYTE.fullmatch(text) if self.to_bytes else None
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode()


class Pieces:
    """Cuts texts into the model's pieces, and ids."""

    def __init__(
        self,
        spaced: SpacedPieces,
        tokens: Sequence[str],
        cutter: TokenCutter,
        left_out: frozenset[int],
    ) -> None:
        self._spaced = spaced
        self._cutter = cutter
        self._unknown = spaced.unknown_runs(tokens, left_out)
        ids = {} if self._unknown is None else {text: i for i, text in enumerate(tokens)}
        self._byte_ids = [ids[text] for text in BYTES if ids]

    def of(self, text: str, *, first: bool) -> Iterator[str | int]:
        """Yield the pieces and ids of a text; `first`: no other text or token precedes it."""
        for part in self._cutter.parts(text):
            if isinstance(part, int):
                yield part
            else:
                yield from self._plain(part, first=first)
            first = False

    def _plain(self, text: str, *, first: bool) -> Iterator[str | int]:
        if not text:
            return
        spaced, written = self._spaced, text.replace(" ", SPACE)
        wanted = spaced.prefix == "always" or (spaced.prefix == "first" and first)
        if wanted and not (spaced.once and written.startswith(SPACE)):
            written = SPACE + written
        words: Iterable[str] = _WORD.findall(written) if spaced.splits else (written,)
        for word in words:
            yield from self._known(word)

    def _known(self, word: str) -> Iterator[str | int]:
        if self._unknown is None:
            yield word
            return
        for index, run in enumerate(self._unknown.split(word)):
            if index % 2:
                yield from (self._byte_ids[byte] for byte in run.encode())
            elif run:
                yield run


def merges_of(tokens: Sequence[str], scores: Sequence[float], normal: frozenset[int]) -> list[str]:
    """Return the merges of a BPE that a GGUF file stores as scores of its tokens.

    Every pair of tokens that makes a third, best score first, as transformers converts them; among
    equal ones those with longer parts.
    """
    known = {tokens[i] for i in normal if " " not in tokens[i]}
    results: list[tuple[float, int, int, int]] = []
    for index in normal:
        text = tokens[index]
        if text in known:
            for cut in range(1, len(text)):
                if text[:cut] in known and text[cut:] in known:
                    results.append((-scores[index], -cut, cut - len(text), index))
    return [f"{tokens[i][:-cut]} {tokens[i][-cut:]}" for _, cut, _, i in sorted(results)]
