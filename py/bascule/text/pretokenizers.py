"""How a byte-level BPE splits text into words: by the name in a GGUF file, or by the steps of a
tokenizer.json.

The expressions are those of the models' own tokenizer.json files; for "default" llama.cpp's
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), which defines that name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import punctuation
from types import MappingProxyType

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Written out because not every browser has (?i: ); U+017F matches s there.
_CONTRACTIONS = "'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    + _REST.replace("]+[\\r\\n]*", "]+[\\r\\n/]*", 1)
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Expressions that split one after the other; what none of them matches stays a piece."""

    expressions: tuple[str, ...]
    # A word that is a token is used whole, without the merges.
    whole_words_first: bool = False
    composed: bool = False

    def parts(self) -> dict[str, object]:
        """Return its part of a tokenizer.json."""
        cuts: list[dict[str, object]] = [
            {"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False}
            for e in self.expressions
        ]
        to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        cuts.append({**to_bytes, "use_regex": False})
        return {
            "normalizer": {"type": "NFC"} if self.composed else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        }


_LLAMA = PreTokenizer((_LLAMA3,), whole_words_first=True)
PRETOKENIZERS = MappingProxyType(
    {
        "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2": PreTokenizer((_GPT2,)),
        "smollm": PreTokenizer((r"\p{N}", _GPT2)),
        "llama-bpe": _LLAMA,
        "llama3": _LLAMA,
        "llama-v3": _LLAMA,
        "qwen2": PreTokenizer((_QWEN2,), composed=True),
        "dbrx": PreTokenizer((_LLAMA3,)),
        "tekken": PreTokenizer((_TEKKEN,), whole_words_first=True),
    }
)

_DIGIT = r"\p{N}"
# A known expression as its authors write it, and ours. Any other is rejected: engines support
# different features, and some expressions backtrack without end.
_EXPRESSIONS = MappingProxyType(
    {e: e for e in (_DIGIT, _GPT2, _LLAMA3, _QWEN2, _TEKKEN)}
    | {e.replace(_CONTRACTIONS, _ANY_CASE): e for e in (_LLAMA3, _QWEN2)}
)

# Rust's \s; JavaScript's has U+FEFF and lacks U+0085.
SPACES = "\\t-\\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# A class of ASCII punctuation, with each character escaped that any engine requires.
ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]\^_`{|}~]"""
# Expressions of encoders, whose matches leave out the spaces between words; special tokens were cut
# out before.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP = MappingProxyType(
    {e: e.replace(r"\s", SPACES) for e in (_WORDS, rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}")}
)


def known_expression(written: str) -> str | None:
    """Return a known expression in a form that every engine reads; None for any other."""
    return _CLIP.get(written) or _EXPRESSIONS.get(written)


def known_replaced(written: str) -> str | None:
    """Return an expression of spaces or punctuation that a normalizer may replace; else None."""
    classes = {r"\s+": f"[{SPACES}]+", r"[\s\x1c-\x1f]+": f"[{SPACES}\\x1c-\\x1f]+"}
    known = {" {2,}": " {2,}", " +": " +", **classes}.get(written)
    return known or _punctuation(written)


def _punctuation(written: str) -> str | None:
    """Return a class of ASCII punctuation, escaped for every engine; None for any other."""
    if not written.startswith("[") or not written.endswith("]"):
        return None
    items = re.findall(r"\\.|.", written[1:-1], re.DOTALL)
    bare = [item for item in items if item in ("[", "]", "^", "-", "\\")]
    found = {item[-1] for item in items}
    if bare or not found or not found <= {*punctuation}:
        return None
    escaped = (f"\\{each}" if each in "[]^-\\" else each for each in sorted(found))
    return f"[{''.join(escaped)}]"


def cuts_words_alone(known: str) -> bool:
    """Whether GPT-2's expression, which ByteLevel uses, splits no piece of a known one further."""
    return known == _CLIP[_WORDS]


class UnknownCut(Exception):
    """Names an unknown step of a tokenizer.json."""


def pretokenizer_of(
    normalizer: object, pre_tokenizer: object, *, whole_words_first: bool
) -> PreTokenizer:
    """Read a tokenizer.json's `normalizer` and `pre_tokenizer`; UnknownCut."""
    forms = [kind_of(step) for step in steps_of(normalizer, "normalizers")]
    if forms not in ([], ["NFC"]):
        raise UnknownCut(f"its text is to be normalised by {forms}"[:120])
    *cuts, last = steps_of(pre_tokenizer, "pretokenizers") or [None]
    if not isinstance(last, dict) or kind_of(last) != "ByteLevel":
        raise UnknownCut("its words are not bytes in the end (ByteLevel)")
    if last.get("add_prefix_space", True) is not False:
        raise UnknownCut("its texts begin with a space that is added")
    expressions = [_expression(cut) for cut in cuts]
    if last.get("use_regex", True) is not False:
        expressions.append(_GPT2)
    return PreTokenizer(tuple(expressions), whole_words_first, composed=bool(forms))


def steps_of(config: object, inside: str) -> Sequence[object]:
    """Return a single step, or those of a sequence; UnknownCut."""
    if config is None:
        return []
    if not isinstance(config, dict) or config.get("type") != "Sequence":
        return [config]
    steps: object = config.get(inside)
    if not isinstance(steps, list):
        raise UnknownCut(f"its sequence has no {inside}")
    return steps


def kind_of(step: object) -> str:
    """Return a step's type, for comparisons and for people."""
    result: object = step.get("type") if isinstance(step, dict) else step
    return str(result)[:40]


def _expression(cut: object) -> str:
    if isinstance(cut, dict):
        if cut.get("type") == "Digits" and cut.get("individual_digits") is True:
            return _DIGIT
        pattern: object = cut.get("pattern")
        written: object = pattern.get("Regex") if isinstance(pattern, dict) else None
        rule = (cut.get("behavior"), cut.get("invert", False))
        # An expression that matches all of a text leaves nothing between its matches to remove.
        known = [("Isolated", False)] + [("Removed", True)] * (written != _DIGIT)
        if cut.get("type") == "Split" and rule in known and isinstance(written, str):
            if written in _EXPRESSIONS:
                return _EXPRESSIONS[written]
            raise UnknownCut(f"its words are cut by {written[:80]!r}")
    raise UnknownCut(f"its words are cut by a step {kind_of(cut)!r} of a sort that is not known")
