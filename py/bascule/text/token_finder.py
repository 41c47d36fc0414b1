"""Find tokens in texts, in time that does not grow with the number of tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping

# Unicode's White_Space, as in the tokenizers library; str.strip() includes U+001C to U+001F.
_WHITE = "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_WHITE_RUN = re.compile(f"[{_WHITE}]*")


class TokenFinder:
    """A sorted set of nonempty tokens.

    A token that is a prefix of a text sorts before the text, and is a prefix of everything between
    the two: so it is the last token before the text, or a prefix of that token.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._sorted = sorted(set(tokens))
        self._longest = max(map(len, self._sorted), default=0)
        self._begun_by = _begun_by(self._sorted)
        first = "".join(map(re.escape, sorted({token[0] for token in self._sorted})))
        self._first = re.compile(f"[{first}]") if first else None

    def at(self, text: str, index: int) -> str | None:
        """Return the longest token at an index."""
        piece = text[index : index + self._longest]
        result = bisect_right(self._sorted, piece) - 1
        while result >= 0:
            if piece.startswith(self._sorted[result]):
                return self._sorted[result]
            result = self._begun_by[result]
        return None

    def all_in(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield each index with a token, and the longest one there; they may overlap."""
        if self._first is not None:
            for start in self._first.finditer(text):
                token = self.at(text, start.start())
                if token is not None:
                    yield start.start(), token

    def is_prefix_of_longer(self, text: str) -> bool:
        """Whether a text is a prefix of a longer token."""
        after = bisect_right(self._sorted, text)
        return after < len(self._sorted) and self._sorted[after].startswith(text)


class TokenCutter:
    """Cuts texts at tokens, the longest first, into texts and ids.

    Tokens of `strips_before` remove the whitespace before them, those of `strips_after` after them.
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
        """Yield the ids and the nonempty texts around them."""
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
    """Return for each of the sorted tokens the index of its longest prefix among them, or -1."""
    results: list[int] = []
    open_ones: list[int] = []
    for index, token in enumerate(tokens):
        while open_ones and not token.startswith(tokens[open_ones[-1]]):
            open_ones.pop()
        results.append(open_ones[-1] if open_ones else -1)
        open_ones.append(index)
    return results


def folded(text: str) -> str:
    """Fold a text's case, character by character; only the first if one becomes several."""
    # The sigma at a word's end differs, depending on its neighbours.
    result = text.upper().lower()
    if len(result) != len(text):
        result = "".join(character.upper().lower()[0] for character in text)
    return result.replace("\u03c2", "\u03c3")
