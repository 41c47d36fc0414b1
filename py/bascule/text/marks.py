"""Keep the contents of messages from becoming control tokens when a template renders them.

A template renders one text, and control tokens are searched for in it afterwards. So wherever a
message's own text reads as a control token, or could complete one at its edges, a mark is inserted:
a character that is in no token and no text. Then the text is split at the control tokens, and only
then the marks are removed.

Sound unless the template cuts a message up, or reverses it, and joins the parts itself; a template
that searches a message for a control token does not find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bascule.errors import InputError
from bascule.text.token_finder import TokenFinder, folded

# Private-use characters, which have no meaning in text: an unused one is soon found.
_CANDIDATES = range(0xE000, 0xF900)


class Marker:
    """Inserts and removes marks for one set of control tokens."""

    def __init__(self, control: Iterable[str]) -> None:
        self._tokens = list(control)
        # Case-insensitive: a template may change the case.
        lower = [folded(token) for token in self._tokens]
        self._finder = TokenFinder(lower)
        self._backwards = TokenFinder(token[::-1] for token in lower)
        self._longest = max(map(len, self._tokens), default=0)
        self._insides = "\n\0".join(token[1:-1] for token in lower)

    def choose(self, texts: Iterable[str]) -> str:
        """Return a mark that is in none of the texts."""
        everything = "\0".join((*self._tokens, *texts))
        used = set(everything)
        for code in _CANDIDATES:
            if chr(code) not in used and escaped(chr(code)) not in everything:
                return chr(code)
        raise InputError("messages", "fewer private characters", f"all {len(_CANDIDATES):,}")

    def mark(self, text: str, mark: str, *, edges: bool = True) -> str:
        """Return the text with marks; unchanged if it cannot be part of a control token."""
        if not self._tokens or not text:
            return text
        if edges:
            text = self._at_edges(text, mark)
        # After the first character of each, including overlapping ones.
        parts: list[str] = []
        done = 0
        for start, _ in self._finder.all_in(folded(text)):
            parts += (text[done : start + 1], mark)
            done = start + 1
        return "".join((*parts, text[done:]))

    def _at_edges(self, text: str, mark: str) -> str:
        """Insert marks at the first and last letter, inside space that a template may trim."""
        bare = text.strip()
        if not bare:
            return text
        start = text.index(bare)
        sizes = range(1, min(self._longest, len(bare) + 1))
        head, tail = folded(bare[: self._longest]), folded(bare[-self._longest :])
        inside = len(bare) <= self._longest and head in self._insides
        before = inside or any(self._backwards.is_prefix_of_longer(head[:n][::-1]) for n in sizes)
        after = any(self._finder.is_prefix_of_longer(tail[-n:]) for n in sizes)
        marked = (mark if before else "") + bare + (mark if after else "")
        return text[:start] + marked + text[start + len(bare) :]

    def mark_all(self, value: object, mark: str) -> object:
        """Mark all texts in a JSON value; its keys, which templates read, not at the edges."""
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
    """Remove the marks of a text, including those that JSON has escaped."""
    return text.replace(mark, "").replace(escaped(mark), "")


def escaped(mark: str) -> str:
    """Return how JSON in ASCII writes a mark."""
    return f"\\u{ord(mark):04x}"


def texts_in(value: object) -> Iterable[str]:
    """Yield all texts in a JSON value, including its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from texts_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts_in(each)
