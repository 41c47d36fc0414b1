"""Split WGSL source into tokens that carry their line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bascule.errors import ShaderError

# Far more than any shader; compilers take far longer over it than this reader.
MAX_CHARACTERS = 1 << 20

_TOKEN = re.compile(
    r"(?P<break>\r\n|[\n\v\f\r\x85\u2028\u2029])"
    r"|(?P<space>[ \t\u200e\u200f]+)"
    r"|(?P<line>//[^\n\v\f\r\x85\u2028\u2029]*)"
    r"|(?P<block>/\*)"
    r"|(?P<name>[^\W\d]\w*)"
    r"|(?P<number>0[xX][0-9a-fA-F.]+(?:[pP][+-]?\d+)?[iufh]?"
    r"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[iufh]?)"
    r"|(?P<symbol>.)",
    re.DOTALL,
)
_IN_BLOCK = re.compile(r"/\*|\*/|\r\n|[\n\v\f\r\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Token:
    """A name, a number or a single character; `line` and `column` count from 1."""

    kind: str  # "name", "number", "symbol" or "end"
    text: str
    line: int
    column: int


def tokens_of(wgsl: str, label: str) -> list[Token]:
    """Return the tokens of a source, without comments; the last one has the kind "end".

    ShaderError for an unterminated comment and for a source of more than 1 MiB.
    """
    if len(wgsl) > MAX_CHARACTERS:
        problem = f"the source has {len(wgsl):,} characters, and {MAX_CHARACTERS:,} are the most"
        raise ShaderError(label, [(1, problem)])
    results: list[Token] = []
    at, line, start = 0, 1, 0
    while at < len(wgsl):
        match = _TOKEN.match(wgsl, at)
        assert match is not None  # the last alternative takes any character
        kind, column = str(match.lastgroup), at - start + 1
        at = match.end()
        if kind == "break":
            line, start = line + 1, at
        elif kind == "block":
            at, line, start = _after_block(wgsl, at, (line, column, start), label)
        elif kind in ("name", "number", "symbol"):
            results.append(Token(kind, match.group(), line, column))
    results.append(Token("end", "", line, at - start + 1))
    return results


def _after_block(
    wgsl: str, at: int, place: tuple[int, int, int], label: str
) -> tuple[int, int, int]:
    """Return where a nested comment ends: index, line, and the line's first index."""
    began, column, start = place
    line, depth = began, 1
    while depth:
        match = _IN_BLOCK.search(wgsl, at)
        if match is None:
            raise ShaderError(label, [(began, "this comment does not end")], column=column)
        at = match.end()
        if match.group() == "/*":
            depth += 1
        elif match.group() == "*/":
            depth -= 1
        else:
            line, start = line + 1, at
    return at, line, start
