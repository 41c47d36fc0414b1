"""Texts and pairs of texts as one row of tokens: a tokenizer.json's templates, and truncation.

The libraries encode the texts alone; the tokens around them are added here, so that the rows are
the same natively and in a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

# A text of a row, by its letter, or a special token's id; each with its token type.
Piece: TypeAlias = tuple[Literal["A", "B"] | int, int]


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates of one text and of two: None if the file has none."""

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Return plain lists; `kept_templates` reads them."""
        return {"single": self.single, "pair": self.pair}


def kept_templates(stored: object, n_tokens: int) -> Templates | None:
    """Parse what `as_json` returned; None from None.

    ValueError unless they are valid for a tokenizer of `n_tokens` tokens.
    """
    match stored:
        case None:
            return None
        case {"single": single, "pair": None}:
            return Templates(_kept_pieces(single, "A", n_tokens), None)
        case {"single": single, "pair": pair}:
            pieces = _kept_pieces(pair, "AB", n_tokens)
            return Templates(_kept_pieces(single, "A", n_tokens), pieces)
        case _:
            raise ValueError("templates of another form")


def _kept_pieces(stored: object, texts: str, n_tokens: int) -> tuple[Piece, ...]:
    results: list[Piece] = []
    for piece in stored if isinstance(stored, list) else ():
        match piece:
            case ["A" | "B" as text, 0 | 1 as kind] if type(kind) is int:
                results.append((text, kind))
            case [int(token), 0 | 1 as kind] if type(token) is type(kind) is int:
                results.append((token, kind))
            case _:
                raise ValueError("a piece of another form")
    in_range = all(0 <= piece < n_tokens for piece, _ in results if isinstance(piece, int))
    letters = sorted(piece for piece, _ in results if isinstance(piece, str))
    if letters != [*texts] or not in_range:
        raise ValueError("other texts or tokens than templates have")
    return tuple(results)


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids with their types; `n_uncut` is the number of tokens before truncation."""

    ids: list[int]
    types: list[int]
    n_uncut: int


def n_special(template: Sequence[Piece]) -> int:
    """Return the number of tokens that a template adds."""
    return sum(isinstance(piece, int) for piece, _ in template)


def joined(
    template: Sequence[Piece], first: Sequence[int], second: Sequence[int], max_tokens: int
) -> Row:
    """Join the tokens of one or two texts by a template, truncated at `max_tokens` tokens."""
    room = max(0, max_tokens - n_special(template))
    n_uncut = len(first) + len(second) + max_tokens - room
    counts = longest_first(len(first), len(second), room)
    texts = {"A": first[: counts[0]], "B": second[: counts[1]]}
    parts = [
        ([piece] if isinstance(piece, int) else texts[piece], kind) for piece, kind in template
    ]
    ids = list(chain.from_iterable(part for part, _ in parts))
    types = list(chain.from_iterable([kind] * len(part) for part, kind in parts))
    return Row(ids, types, n_uncut)


def longest_first(first: int, second: int, max_tokens: int) -> tuple[int, int]:
    """Return how many tokens of two texts remain: the longer one is cut to the shorter, then both.

    As in `tokenizers`: of two that are both cut the longer one gets the odd token.
    """
    if first + second <= max_tokens:
        return first, second
    short, long = sorted((first, second))
    if short <= max_tokens - short:
        long = max_tokens - short
    else:
        short, long = max_tokens // 2, max_tokens - max_tokens // 2
    return (long, short) if first > second else (short, long)
