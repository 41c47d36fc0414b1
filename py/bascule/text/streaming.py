"""Text that arrives token by token: whole characters only, up to a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from bascule.base.arguments import strings
from bascule.errors import InputError
from bascule.text.language import TokenDecoder


class Detokeniser:
    """Converts tokens to text as they arrive, and holds back the bytes of an incomplete character.

    Bytes that cannot become UTF-8 give U+FFFD, as in `bytes.decode`. At the `start` of a text the
    space is dropped that the tokenizer adds before each text, if it does.
    """

    def __init__(
        self, tokenizer: TokenDecoder, *, skip_special: bool = True, start: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strips = start and tokenizer.strips
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that this token completes, often "" within a character."""
        result = self._tokenizer.decode_bytes([token], skip_special=self._skip_special)
        if self._strips and result:
            self._strips = False
            result = result.removeprefix(b" ")
        return self._decoder.decode(result)

    def flush(self) -> str:
        """Return the rest: U+FFFD for an incomplete character, else ""."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class StopStrings:
    """Passes text up to a stop string, wherever its pieces are cut.

    The stop string that ends first wins; among those that end together, the one that starts first.
    """

    def __init__(self, stops: str | Iterable[str]) -> None:
        stops = strings("stop", stops)
        if "" in stops:
            raise InputError("stop", "strings that are not empty", "an empty one")
        self._stops = tuple(dict.fromkeys(stops))
        self._held = ""
        self.stopped: str | None = None

    def push(self, text: str) -> str:
        """Return the text that cannot become part of a stop string; "" once it has stopped."""
        if self.stopped is not None:
            return ""
        self._held += text
        ends = (
            (at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0
        )
        if first := min(ends, default=None):
            _, at, self.stopped = first
            before, self._held = self._held[:at], ""
            return before
        n_released = len(self._held) - self._could_begin()
        before, self._held = self._held[:n_released], self._held[n_released:]
        return before

    def flush(self) -> str:
        """Return what was held back, when no more text follows."""
        rest, self._held = self._held, ""
        return rest

    def _could_begin(self) -> int:
        """Return the most characters at the end that may start a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in sizes if self._begins(self._held[-n:])), 0)

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)
