"""A position in a list of WGSL tokens, and errors that name it."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.errors import ShaderError
from bascule.kernels.wgsl_tokens import Token

_CLOSING = {"(": ")", "[": "]", "{": "}"}


def fault(label: str, token: Token, problem: str) -> ShaderError:
    """Return an error at that token."""
    return ShaderError(label, [(token.line, problem)], column=token.column)


class Cursor:
    """Reads tokens in order; the last one, of kind "end", is never passed."""

    def __init__(self, tokens: Sequence[Token], label: str) -> None:
        self._tokens = tokens
        self.label = label
        self.at = 0

    @property
    def token(self) -> Token:
        """The current token."""
        return self._tokens[min(self.at, len(self._tokens) - 1)]

    @property
    def ended(self) -> bool:
        """Whether the source ends here."""
        return self.token.kind == "end"

    def next(self) -> Token:
        """Return the current token and advance."""
        token = self.token
        self.at += not self.ended
        return token

    def take(self, text: str) -> bool:
        """Skip that text if it is here."""
        result = self.token.text == text and not self.ended
        self.at += result
        return result

    def expect(self, text: str) -> Token:
        """Skip that text; ShaderError for any other."""
        if self.token.text != text or self.ended:
            raise fault(self.label, self.token, f"expected '{text}', found {self._shown()}")
        return self.next()

    def name(self, what: str) -> str:
        """Take a name; ShaderError, naming `what`, for anything else."""
        if self.token.kind != "name":
            raise fault(
                self.label, self.token, f"expected the name of {what}, found {self._shown()}"
            )
        return self.next().text

    def balanced(self) -> list[Token]:
        """Skip a bracket up to the one that closes it; return the tokens between them."""
        opening, waiting, start = self.next(), list[str](), self.at
        waiting.append(_CLOSING[opening.text])
        while waiting:
            if self.ended:
                raise fault(self.label, opening, f"this '{opening.text}' is never closed")
            token = self.next()
            if token.text in _CLOSING:
                waiting.append(_CLOSING[token.text])
            elif token.text in (")", "]", "}") and token.text != waiting.pop():
                raise fault(self.label, token, f"this '{token.text}' closes nothing")
        return list(self._tokens[start : self.at - 1])

    def until(self, *stops: str) -> list[Token]:
        """Take the tokens up to one of `stops` outside brackets, which is not taken."""
        results: list[Token] = []
        while not self.ended and self.token.text not in stops:
            if self.token.text in _CLOSING:
                first = self.at
                self.balanced()
                results += self._tokens[first : self.at]
            else:
                results.append(self.next())
        return results

    def passed(self, start: int) -> tuple[Token, ...]:
        """Return the tokens from index `start` up to here."""
        return tuple(self._tokens[start : self.at])

    def _shown(self) -> str:
        return "the end of the source" if self.ended else f"'{self.token.text[:40]}'"
