"""An untrusted vocabulary, as a tokenizer.json; GGUF metadata contain one.

There are two kinds: a byte-level BPE (GGUF calls it "gpt2"), in whose tokens each character stands
for a byte (https://github.com/openai/gpt-2/blob/master/src/encoder.py), and SentencePiece's
("llama", see spaced.py). Only the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text.pretokenizers import PRETOKENIZERS, PreTokenizer
from bascule.text.spaced import BYTES, SpacedPieces, merges_of

MAX_TOKENS = 1 << 20
MAX_TOKEN_CHARACTERS = 1 << 12
# Each of these is searched for at every position of a text.
MAX_CONTROL = 1 << 14
MAX_CONTROL_CHARACTERS = 1 << 7
# The library builds an automaton of these, with a state for each of their characters.
MAX_USER_DEFINED = 1 << 14
MAX_USER_DEFINED_CHARACTERS = 1 << 18
_PREFIX = "tokenizer.ggml."
# The kinds of tokens, by GGUF's numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
# Merges that follow from scores: each token is split at every character.
_MAX_CUT, _MAX_CUTS = 1 << 8, 1 << 23
# Texts that always end a turn, as in llama.cpp.
_ENDS = frozenset(
    ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")
) | {"<end_of_turn>"}


def _characters() -> dict[str, int]:
    """Map GPT-2's characters to bytes: the byte itself if it is printable, else from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    results = {chr(byte): byte for byte in printable}
    return results | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_OF = _characters()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, and what the file says of them.

    `control` tokens are parsed if a caller allows it, `user_defined` ones in every text; `ends` are
    the ids that end a model's answer. Tokens of `strips_before` remove the whitespace before them,
    those of `strips_after` after them.
    """

    tokens: Sequence[str]
    merges: Sequence[str]
    pre: PreTokenizer | SpacedPieces
    control: Mapping[str, int]
    user_defined: Mapping[str, int]
    unused: frozenset[int]
    bos: int | None
    eos: int | None
    adds_bos: bool
    ends: frozenset[int]
    chat_template: str | None = field(repr=False)
    strips_before: frozenset[int] = frozenset()
    strips_after: frozenset[int] = frozenset()

    def text(self, token: int | None) -> str:
        """Return a token's own text, "" for None."""
        return "" if token is None else self.tokens[token]

    @property
    def left_out(self) -> frozenset[int]:
        """The tokens that plain text never produces."""
        return self.unused.union(self.control.values())

    def tokenizer_json(self) -> bytes:
        """Return the tokenizer.json of plain text: it lacks control tokens, so none is parsed."""
        rest = {"version": "1.0", "post_processor": None, "decoder": None}
        left_out = self.left_out  # a new set each time
        if isinstance(self.pre, SpacedPieces):
            model = self.pre.model(self.tokens, left_out, self.merges)
            steps = {"added_tokens": [], "normalizer": None, "pre_tokenizer": None}
            return json.dumps({**rest, **steps, "model": model}, ensure_ascii=False).encode()
        vocab = {text: i for i, text in enumerate(self.tokens) if i not in left_out}
        added = [
            {
                **{"id": i, "content": text, "special": False, "normalized": False},
                **{"single_word": False, "lstrip": False, "rstrip": False},
            }
            for text, i in self.user_defined.items()
        ]
        rule = {"type": "BPE", "ignore_merges": self.pre.whole_words_first}
        model = {**rule, "vocab": vocab, "merges": list(self.merges)}
        parts = {"model": model, "added_tokens": added, **self.pre.parts()}
        return json.dumps(rest | parts, ensure_ascii=False).encode()


def read_vocabulary(metadata: Mapping[str, object], place: str) -> Vocabulary:
    """Read the vocabulary in a GGUF file's metadata; `place` names the file.

    ModelFileError if it is unsound, UnsupportedModelError for another kind of tokenizer.
    """
    mine = (key for key in metadata if key.startswith(_PREFIX))
    fields = {key.removeprefix(_PREFIX): metadata[key] for key in mine}
    fields["chat_template"] = metadata.get("tokenizer.chat_template")
    model = _text(fields, "model", place)
    if model == "llama":
        return _read_scored(fields, place)
    if model != "gpt2":
        problem = f"its tokenizer is of kind {model[:40]!r}, and Bascule knows 'gpt2' and 'llama'"
        raise UnsupportedModelError(place, problem, hint="Use a model with a BPE.")
    return make_vocabulary(fields, _pre_tokenizer(fields, place), place)


def _read_scored(config: dict[str, object], place: str) -> Vocabulary:
    """Read SentencePiece's BPE, whose merges follow from scores; defaults are llama.cpp's."""
    tokens = _tokens(config, place)
    kinds = _kinds(config, len(tokens), place, maximum=BYTE)
    if lacking := set(BYTES).difference(tokens):
        raise _fault(place, "tokens", "one for each byte", f"no {min(lacking)}")
    if max(map(len, tokens)) > _MAX_CUT or sum(map(len, tokens)) > _MAX_CUTS:
        raise _fault(place, "tokens", f"tokens of at most {_MAX_CUT} characters", "longer ones")
    scores = config.get("scores")
    if not isinstance(scores, Sequence) or isinstance(scores, str) or len(scores) != len(tokens):
        raise _fault(place, "scores", f"{len(tokens):,} numbers", _kind(scores))
    if not all(isinstance(score, int | float) and isfinite(score) for score in scores):
        raise _fault(place, "scores", "finite numbers", "others")
    normal = frozenset(i for i, kind in enumerate(kinds) if kind == NORMAL)
    config["token_type"] = [NORMAL if kind == BYTE else kind for kind in kinds]
    config["merges"] = tuple(merges_of(tokens, scores, normal))
    config.setdefault("add_bos_token", True)
    prefixed = _flag({"add_space_prefix": True, **config}, "add_space_prefix", place)
    pre = SpacedPieces("always" if prefixed else "never", stripped=prefixed)
    return make_vocabulary(config, pre, place)


def make_vocabulary(
    metadata: Mapping[str, object], pre: PreTokenizer | SpacedPieces, place: str
) -> Vocabulary:
    """Check everything about tokens under GGUF's keys, without their prefix; errors as above."""
    tokens = _tokens(metadata, place)
    kinds = _kinds(metadata, len(tokens), place)
    by_kind: dict[int, dict[str, int]] = {kind: {} for kind in range(1, 6)}
    for index, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
        by_kind[kind][text] = index
    control = by_kind[CONTROL] | by_kind[UNKNOWN]
    _check_control(control, place)
    _check_user_defined(by_kind[USER_DEFINED], place)
    merged = by_kind[NORMAL].keys() | by_kind[USER_DEFINED].keys()
    ids = {name: _id(metadata, name, len(tokens), place) for name in ("bos", "eos", "eot", "eom")}
    named = {control[text] for text in _ENDS if text in control}
    special = {i for i in (ids["eos"], ids["eot"], ids["eom"]) if i is not None}
    result = Vocabulary(
        tokens=tokens,
        merges=_merges(metadata, merged, place),
        pre=pre,
        control=control,
        user_defined=by_kind[USER_DEFINED],
        unused=frozenset(by_kind[UNUSED].values()),
        bos=ids["bos"],
        eos=ids["eos"],
        adds_bos=_flag(metadata, "add_bos_token", place) and ids["bos"] is not None,
        ends=frozenset(named | special),
        chat_template=_chat_template(metadata, place),
    )
    if isinstance(pre, SpacedPieces):
        try:
            pre.unknown_runs(tokens, result.left_out)
        except ValueError as fault:
            raise UnsupportedModelError(place, f"{fault}") from None
    return result


def _fault(place: str, key: str, expected: str, found: str) -> ModelFileError:
    return ModelFileError(place, f"its tokenizer's {key}: expected {expected}, found {found}")


def _text(metadata: Mapping[str, object], key: str, place: str) -> str:
    value = metadata.get(key)
    if not isinstance(value, str):
        raise _fault(place, key, "a string", _kind(value))
    return value


def _kind(value: object) -> str:
    return "none" if value is None else f"one of type {type(value).__name__}"


def _pre_tokenizer(metadata: Mapping[str, object], place: str) -> PreTokenizer:
    # Files older than the key mean llama.cpp's "default".
    name = _text(metadata, "pre", place) if "pre" in metadata else "default"
    if name not in PRETOKENIZERS:
        problem = f"its text is to be split as {name[:40]!r}, and Bascule knows "
        raise UnsupportedModelError(place, problem + ", ".join(PRETOKENIZERS))
    return PRETOKENIZERS[name]


def _strings(metadata: Mapping[str, object], key: str, place: str) -> tuple[str, ...]:
    value = metadata.get(key)
    if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
        raise _fault(place, key, "a list of strings", _kind(value))
    return value


def _tokens(metadata: Mapping[str, object], place: str) -> tuple[str, ...]:
    tokens = _strings(metadata, "tokens", place)
    if not 1 <= len(tokens) <= MAX_TOKENS:
        raise _fault(place, "tokens", f"1 to {MAX_TOKENS:,}", f"{len(tokens):,}")
    longest = max(map(len, tokens))
    if longest > MAX_TOKEN_CHARACTERS:
        expected = f"tokens of at most {MAX_TOKEN_CHARACTERS:,} characters"
        raise _fault(place, "tokens", expected, f"{longest:,}")
    if len(set(tokens)) < len(tokens):
        raise _fault(place, "tokens", "each token once", "one twice")
    return tokens


def _kinds(
    metadata: Mapping[str, object], n_tokens: int, place: str, *, maximum: int = UNUSED
) -> Sequence[int]:
    value = metadata.get("token_type")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _fault(place, "token_type", "a list of numbers", _kind(value))
    if len(value) != n_tokens:
        raise _fault(place, "token_type", f"{n_tokens:,} numbers", f"{len(value):,}")
    if not all(type(kind) is int and NORMAL <= kind <= maximum for kind in value):
        raise _fault(place, "token_type", f"numbers from 1 to {maximum}", "others")
    return value


def _check_control(control: Mapping[str, int], place: str) -> None:
    if len(control) > MAX_CONTROL:
        raise _fault(place, "tokens", f"at most {MAX_CONTROL:,} of control", f"{len(control):,}")
    for text in control:
        # A single character could not be distinguished from the same character in a message.
        if not 2 <= len(text) <= MAX_CONTROL_CHARACTERS:
            expected = f"control tokens of 2 to {MAX_CONTROL_CHARACTERS} characters"
            raise _fault(place, "tokens", expected, f"{len(text):,}")


def _check_user_defined(tokens: Mapping[str, int], place: str) -> None:
    if "" in tokens:
        raise _fault(place, "tokens", "a text for each token of the users", "an empty one")
    characters = sum(map(len, tokens))
    if len(tokens) > MAX_USER_DEFINED or characters > MAX_USER_DEFINED_CHARACTERS:
        limit = f"{MAX_USER_DEFINED:,} of the users with {MAX_USER_DEFINED_CHARACTERS:,} characters"
        raise _fault(place, "tokens", f"at most {limit}", f"{len(tokens):,} with {characters:,}")


def _id(metadata: Mapping[str, object], name: str, n_tokens: int, place: str) -> int | None:
    key = f"{name}_token_id"
    value = metadata.get(key)
    if value is None:
        return None
    if type(value) is not int:
        raise _fault(place, key, "a number", _kind(value))
    if not 0 <= value < n_tokens:
        raise _fault(place, key, f"a number from 0 to {n_tokens - 1:,}", f"{value:,}")
    return value


def _flag(metadata: Mapping[str, object], key: str, place: str) -> bool:
    value = metadata.get(key, False)
    if not isinstance(value, bool):
        raise _fault(place, key, "a boolean", _kind(value))
    return value


def _merges(metadata: Mapping[str, object], known: set[str], place: str) -> tuple[str, ...]:
    merges = _strings(metadata, "merges", place)
    for index, merge in enumerate(merges):
        left, space, right = merge.partition(" ")
        # A part with a space in it is not a byte token, so `known` covers that, too.
        if not (space and left in known and right in known and left + right in known):
            expected = "two tokens that make a third, with a space between"
            raise _fault(place, f"merges, number {index:,}", expected, repr(merge[:80]))
    if len(set(merges)) < len(merges):
        raise _fault(place, "merges", "each merge once", "one twice")
    return merges


def _chat_template(metadata: Mapping[str, object], place: str) -> str | None:
    value = metadata.get("chat_template")
    if value is None or isinstance(value, str):
        return value
    raise _fault(place, "chat_template", "a string", _kind(value))
