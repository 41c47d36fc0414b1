"""How a byte-level BPE cuts text into words first, by the name that a GGUF file gives.

The expressions are those of the models' own tokenizer.json files; for "default" llama.cpp's
(https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), which defines that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Written out because not every browser has (?i: ); U+017F is what it makes of an s.
_CONTRACTIONS = "'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Expressions that cut one after the other; what none of them takes stays a piece."""

    expressions: tuple[str, ...]
    # A word that is a token is taken whole, without a look at the merges.
    whole_words_first: bool = False
    composed: bool = False

    def parts(self) -> dict[str, object]:
        """What tokenizer.json holds of it."""
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
    }
)
