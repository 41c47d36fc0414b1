"""Keeps what people wrote from becoming control tokens when a template wraps it.

A template gives one text, and the control tokens in it are found afterwards. So wherever a
message's own text reads as a control token, or could complete one at its edges, a mark is set into
it: a character that is in no token and no text at hand. Then the text is split at the control
tokens, and only then the marks are taken out.
Sound as long as the template does not cut a message up, or turn it round, and put the pieces
together itself; a template that looks for a control token in a message no more finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bascule.errors import InputError
from bascule.text.token_finder import TokenFinder, folded

# Private characters, which mean nothing in text: one that is not used at hand is soon found.
_CANDIDATES = range(0xE000, 0xF900)


class Marker:
    """Sets and takes out marks for one set of control tokens."""

    def __init__(self, control: Iterable[str]) -> None:
        self._tokens = list(control)
        # In any case: a template may write all in capitals, or in none.
        lower = [folded(token) for token in self._tokens]
        self._finder = TokenFinder(lower)
        self._backwards = TokenFinder(token[::-1] for token in lower)
        self._longest = max(map(len, self._tokens), default=0)
        self._insides = "\n\0".join(token[1:-1] for token in lower)

    def choose(self, texts: Iterable[str]) -> str:
        """A mark that is in none of the texts."""
        everything = "\0".join((*self._tokens, *texts))
        used = set(everything)
        for code in _CANDIDATES:
            if chr(code) not in used and escaped(chr(code)) not in everything:
                return chr(code)
        raise InputError("messages", "fewer private characters", f"all {len(_CANDIDATES):,}")

    def mark(self, text: str, mark: str, *, edges: bool = True) -> str:
        """The text with marks; a text that could be no part of a control token as it is."""
        if not self._tokens or not text:
            return text
        if edges:
            text = self._at_edges(text, mark)
        # After the first character of each, of those that overlap too.
        parts: list[str] = []
        done = 0
        for start, _ in self._finder.all_in(folded(text)):
            parts += (text[done : start + 1], mark)
            done = start + 1
        return "".join((*parts, text[done:]))

    def _at_edges(self, text: str, mark: str) -> str:
        """Marks at the first and the last letter, inside the space that a template may trim."""
        bare = text.strip()
        if not bare:
            return text
        start = text.index(bare)
        sizes = range(1, min(self._longest, len(bare) + 1))
        head, tail = folded(bare[: self._longest]), folded(bare[-self._longest :])
        inside = len(bare) <= self._longest and head in self._insides
        before = inside or any(self._backwards.begins_longer(head[:n][::-1]) for n in sizes)
        after = any(self._finder.begins_longer(tail[-n:]) for n in sizes)
        marked = (mark if before else "") + bare + (mark if after else "")
        return text[:start] + marked + text[start + len(bare) :]

    def mark_all(self, value: object, mark: str) -> object:
        """The same for all texts in a JSON value; its keys are read by templates: no edges."""
        if isinstance(value, str):
            return self.mark(value, mark, edges=True)
        if isinstance(value, Mapping):
            return {
                self.mark(str(key), mark, edges=False): self.mark_all(each, mark)
                for key, each in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.mark_all(each, mark) for each in value]
        return value


def without(text: str, mark: str) -> str:
    """The text without its marks, also those that JSON has escaped."""
    return text.replace(mark, "").replace(escaped(mark), "")


def escaped(mark: str) -> str:
    """How JSON in ASCII writes a mark."""
    return f"\\u{ord(mark):04x}"


def texts_in(value: object) -> Iterable[str]:
    """All texts in a JSON value, its keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from texts_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts_in(each)
