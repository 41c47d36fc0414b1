"""Constant integers in WGSL source: array and workgroup sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bascule.kernels.wgsl_tokens import Token

# The value of a name; None if it is unknown.
Lookup = Callable[[str], int | None]

_LEVELS: tuple[tuple[str, ...], ...] = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"))
_PRODUCTS = ("*", "/", "%")
_CALLS = {"u32": 1, "i32": 1, "abs": 1, "min": 2, "max": 2}
_DEEPEST = 50


class _UnknownError(Exception):
    """The expression contains something that is not computed here."""


def whole_number(tokens: Sequence[Token], lookup: Lookup) -> int | None:
    """Return the value of a constant expression; None if it is not a known integer."""
    try:
        reader = _Reader(tokens, lookup)
        result = reader.level(0, 0)
        return result if reader.at == len(tokens) else None
    except _UnknownError:
        return None


class _Reader:
    def __init__(self, tokens: Sequence[Token], lookup: Lookup) -> None:
        self._tokens = tokens
        self._lookup = lookup
        self.at = 0

    def level(self, n: int, depth: int) -> int:
        """Evaluate operators of one precedence, the loosest first."""
        if depth > _DEEPEST:
            raise _UnknownError
        if n == len(_LEVELS):
            return self._products(depth)
        left = self.level(n + 1, depth)
        while (operator := self._operator(_LEVELS[n])) is not None:
            right = self.level(n + 1, depth)
            left = _applied(operator, left, right)
        return left

    def _products(self, depth: int) -> int:
        left = self._unary(depth)
        while (operator := self._operator(_PRODUCTS)) is not None:
            left = _applied(operator, left, self._unary(depth))
        return left

    def _unary(self, depth: int) -> int:
        if depth > _DEEPEST:
            raise _UnknownError
        if self._operator(("-",)):
            return -self._unary(depth + 1)
        token = self._next()
        if token.text == "(":
            result = self.level(0, depth + 1)
            self._expect(")")
            return result
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "name" and self._peek() == "(" and token.text in _CALLS:
            return self._call(token.text, depth + 1)
        value = self._lookup(token.text) if token.kind == "name" else None
        if value is None:
            raise _UnknownError
        return value

    def _call(self, name: str, depth: int) -> int:
        self._expect("(")
        arguments = [self.level(0, depth)]
        while self._peek() == ",":
            self.at += 1
            if self._peek() != ")":
                arguments.append(self.level(0, depth))
        self._expect(")")
        if len(arguments) != _CALLS[name]:
            raise _UnknownError
        return {"abs": abs, "min": min, "max": max}.get(name, lambda value: value)(*arguments)

    def _operator(self, wanted: Sequence[str]) -> str | None:
        for each in wanted:
            pair = self._tokens[self.at : self.at + len(each)]
            if "".join(t.text for t in pair) == each:
                self.at += len(each)
                return each
        return None

    def _peek(self) -> str:
        return self._tokens[self.at].text if self.at < len(self._tokens) else ""

    def _next(self) -> Token:
        if self.at >= len(self._tokens):
            raise _UnknownError
        self.at += 1
        return self._tokens[self.at - 1]

    def _expect(self, text: str) -> None:
        if self._next().text != text:
            raise _UnknownError


def _number(text: str) -> int:
    digits = text.lower()
    is_hex = digits.startswith("0x")
    digits = digits.rstrip("iu") if is_hex else digits.rstrip("iufh")
    try:
        return int(digits, 16) if is_hex else int(digits[:40])
    except ValueError:
        raise _UnknownError from None  # a fraction


def _applied(operator: str, left: int, right: int) -> int:
    if abs(left) >= 1 << 64 or abs(right) >= 1 << 64:
        raise _UnknownError
    if operator in ("/", "%"):
        if not right:
            raise _UnknownError
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if operator == "/" else left - right * quotient
    if operator in ("<<", ">>"):
        if not 0 <= right < 32:
            raise _UnknownError
        return left << right if operator == "<<" else left >> right
    return {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "|": left | right,
        "^": left ^ right,
        "&": left & right,
    }[operator]
