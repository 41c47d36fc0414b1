"""Finds tokens in texts: in time that does not grow with the number of tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping

# Unicode's White_Space, as the tokenizers library has it; str.strip() takes U+001C to U+001F.
_WHITE = "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_WHITE_RUN = re.compile(f"[{_WHITE}]*")


class TokenFinder:
    """A set of tokens, none of them empty, sorted.

    A token that begins a text stands before the text in this order, and begins all that stands
    between the two: so it is the last token before the text, or one that begins that token.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._sorted = sorted(set(tokens))
        self._longest = max(map(len, self._sorted), default=0)
        self._begun_by = _begun_by(self._sorted)
        first = "".join(map(re.escape, sorted({token[0] for token in self._sorted})))
        self._first = re.compile(f"[{first}]") if first else None

    def at(self, text: str, index: int) -> str | None:
        """The longest token that stands at an index."""
        piece = text[index : index + self._longest]
        result = bisect_right(self._sorted, piece) - 1
        while result >= 0:
            if piece.startswith(self._sorted[result]):
                return self._sorted[result]
            result = self._begun_by[result]
        return None

    def all_in(self, text: str) -> Iterator[tuple[int, str]]:
        """Each index where a token stands, with the longest one; they may overlap."""
        if self._first is not None:
            for start in self._first.finditer(text):
                token = self.at(text, start.start())
                if token is not None:
                    yield start.start(), token

    def begins_longer(self, text: str) -> bool:
        """Whether a text is the beginning of a longer token."""
        after = bisect_right(self._sorted, text)
        return after < len(self._sorted) and self._sorted[after].startswith(text)


class TokenCutter:
    """Cuts texts at tokens, of those at one place the longest, into texts and ids.

    Tokens of `strips_before` take the white space before them, those of `strips_after` that
    behind them.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        strips_before: Collection[int] = (),
        strips_after: Collection[int] = (),
    ) -> None:
        self._ids = ids
        self._finder = TokenFinder(ids)
        self._before, self._after = strips_before, strips_after

    def parts(self, text: str) -> Iterator[str | int]:
        """Yield the ids and the texts around them, of which none is empty."""
        done = 0
        for start, token in self._finder.all_in(text):
            if start < done:
                continue
            index = self._ids[token]
            plain = text[done:start]
            if plain := plain.rstrip(_WHITE) if index in self._before else plain:
                yield plain
            yield index
            done = start + len(token)
            if index in self._after:
                done += len(_WHITE_RUN.match(text, done)[0])  # type: ignore[index]
        if done < len(text):
            yield text[done:]


def _begun_by(tokens: list[str]) -> list[int]:
    """For each of the sorted tokens the index of the longest other one that begins it, or -1."""
    results: list[int] = []
    open_ones: list[int] = []
    for index, token in enumerate(tokens):
        while open_ones and not token.startswith(tokens[open_ones[-1]]):
            open_ones.pop()
        results.append(open_ones[-1] if open_ones else -1)
        open_ones.append(index)
    return results


def folded(text: str) -> str:
    """The text in one case, character by character; of one that becomes several the first."""
    # The sigma at a word's end is another one, depending on its neighbours.
    result = text.upper().lower()
    if len(result) != len(text):
        result = "".join(character.upper().lower()[0] for character in text)
    return result.replace("\u03c2", "\u03c3")
