"""Check a sentence encoder's tokenizer.json before the library reads it.

The library ends the process, hangs or panics on some files. So it gets a file that is written from
the checked parts: the model, the added tokens and the steps in tokenizer_steps.py. Padding and
truncation are left out, since they are done here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any

from bascule.base.json_object import TOKENIZER, json_object
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text.pairs import Templates
from bascule.text.tokenizer_steps import (
    MAX_WIDTH,
    InvalidStep,
    UnknownStep,
    checked_decoder,
    checked_normalizer,
    checked_pretokenizer,
    checked_processor,
    flag,
    text,
)
from bascule.text.vocabulary import MAX_TOKENS

_MAX_ADDED, _MAX_ADDED_CHARACTERS = 1 << 12, 1 << 16
_MAX_ADDED_LENGTH = 128
# A trie of tokens is searched this deep from each character of a text.
_MAX_TOKEN_LENGTH = 256
# The library tries all parts of a word of this many characters.
_MAX_WORD = 256
_ADDED_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Model = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedTokenizer:
    """A tokenizer.json for the library; `n_tokens` is the largest id plus one.

    Without `templates` it has several nested ones.
    """

    json: bytes
    n_tokens: int
    n_added_to_text: int
    templates: Templates | None


def check_tokenizer(data: bytes, place: str) -> CheckedTokenizer:
    """Check all of a tokenizer.json; `place` names it.

    ModelFileError if it is damaged or hostile, UnsupportedModelError for a step or a model that
    encoders do not have.
    """
    config = json_object(data, place, TOKENIZER)
    try:
        model, ids = _model(config.get("model"))
        added = _added_tokens(config.get("added_tokens"), ids)
        processor, n_added, templates = checked_processor(config.get("post_processor"), ids)
        clean = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": checked_normalizer(config.get("normalizer")),
            "pre_tokenizer": checked_pretokenizer(config.get("pre_tokenizer")),
            "post_processor": processor,
            "decoder": checked_decoder(config.get("decoder")),
            "model": model,
        }
    except InvalidStep as fault:
        raise ModelFileError(place, f"{fault}") from None
    except UnknownStep as unknown:
        problem = f"its tokenizer has {unknown}, which sentence encoders do not have"
        raise UnsupportedModelError(place, problem) from None
    written = json.dumps(clean, ensure_ascii=False).encode()
    return CheckedTokenizer(written, max(ids.values(), default=-1) + 1, n_added, templates)


def _model(value: object) -> tuple[Model, dict[str, int]]:
    """Return the model, and the ids of its tokens."""
    if not isinstance(value, dict):
        raise InvalidStep("it has no model")
    kind = value.get("type", "BPE" if "merges" in value else "WordPiece")  # as in older files
    read = _MODELS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise UnknownStep(f"a model of type {str(kind)[:40]!r}")
    model, ids = read(value)
    return {"type": kind, **model}, ids


def _word_piece(config: Mapping[str, Any]) -> tuple[Model, dict[str, int]]:
    ids = _vocab(config, minimum=0)
    unknown, max_chars = config.get("unk_token"), config.get("max_input_chars_per_word", 100)
    if not isinstance(unknown, str) or unknown not in ids:
        raise InvalidStep(f"its token for unknown words, {str(unknown)[:40]!r}, is not a token")
    if type(max_chars) is not int or not 1 <= max_chars <= _MAX_WORD:
        result = str(max_chars)[:40]
        raise InvalidStep(f"its max_input_chars_per_word is {result}, not 1 to {_MAX_WORD}")
    prefix = text(0, MAX_WIDTH)(config.get("continuing_subword_prefix", "##"))
    rest = {"continuing_subword_prefix": prefix, "max_input_chars_per_word": max_chars}
    return {"unk_token": unknown, **rest, "vocab": ids}, ids


def _bpe(config: Mapping[str, Any]) -> tuple[Model, dict[str, int]]:
    ids = _vocab(config, minimum=1)
    for name in ("dropout", "continuing_subword_prefix"):
        if config.get(name):
            raise UnknownStep(f"a BPE with {name}")
    suffix = config.get("end_of_word_suffix")
    suffix = None if suffix is None else text(0, MAX_WIDTH)(suffix) or None
    unknown = config.get("unk_token")
    if unknown is not None and (not isinstance(unknown, str) or unknown not in ids):
        raise InvalidStep(f"its token for unknown text, {str(unknown)[:40]!r}, is not a token")
    merges = config.get("merges")
    if not isinstance(merges, list):
        raise InvalidStep("its model has no merges")
    flags = {name: flag(config.get(name, False)) for name in ("fuse_unk", "byte_fallback")}
    flags["ignore_merges"] = flag(config.get("ignore_merges", False))
    pairs = [_merge(each, ids) for each in merges]
    rest = {"end_of_word_suffix": suffix, "vocab": ids, "merges": pairs}
    return {"unk_token": unknown, **flags, **rest}, ids


def _merge(merge: object, ids: Mapping[str, int]) -> list[str]:
    match merge.split(" ") if isinstance(merge, str) else merge:
        case [str(left), str(right)] if left in ids and right in ids and left + right in ids:
            return [left, right]
        case _:
            raise InvalidStep(f"its merge {str(merge)[:80]} is not of two tokens that make a third")


def _unigram(config: Mapping[str, Any]) -> tuple[Model, dict[str, int]]:
    vocab, unknown = config.get("vocab"), config.get("unk_id")
    if not isinstance(vocab, list) or not 1 <= len(vocab) <= MAX_TOKENS:
        raise InvalidStep(f"its vocab is not a list of 1 to {MAX_TOKENS:,} tokens")
    if type(unknown) is not int or not 0 <= unknown < len(vocab):
        raise InvalidStep(f"its unk_id is {str(unknown)[:40]}, which is not a token")
    pairs: list[tuple[str, float]] = []
    ids: dict[str, int] = {}
    for index, each in enumerate(vocab):
        match each:
            case [str(token), int() | float() as score] if isfinite(score):
                pairs.append((_token(token, minimum=1), float(score)))
            case _:
                raise InvalidStep(f"{str(each)[:80]} is not a token with its score")
        ids[token] = index
    if len(ids) < len(vocab):
        raise InvalidStep("a token occurs twice in its vocab")
    fallback = flag(config.get("byte_fallback", False))
    return {"unk_id": unknown, "byte_fallback": fallback, "vocab": pairs}, ids


_MODELS: Mapping[str, Callable[[Mapping[str, Any]], tuple[Model, dict[str, int]]]] = (
    MappingProxyType({"WordPiece": _word_piece, "BPE": _bpe, "Unigram": _unigram})
)


def _vocab(config: Mapping[str, Any], *, minimum: int) -> dict[str, int]:
    vocab = config.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise InvalidStep("its model has no vocab")
    ids = {_token(token, minimum=minimum): _id(number) for token, number in vocab.items()}
    if len(set(ids.values())) < len(ids):
        raise InvalidStep("two tokens have one id")
    return ids


def _token(token: str, *, minimum: int) -> str:
    if not minimum <= len(token) <= _MAX_TOKEN_LENGTH:
        raise InvalidStep(f"a token has {len(token):,} characters, not 1 to {_MAX_TOKEN_LENGTH}")
    return token


def _id(number: object) -> int:
    if type(number) is not int or not 0 <= number < MAX_TOKENS:
        result = str(number)[:40]
        raise InvalidStep(f"a token has the id {result}, expected a number below {MAX_TOKENS:,}")
    return number


def _added_tokens(tokens: object, ids: dict[str, int]) -> list[dict[str, Any]]:
    """Return the added tokens, and add their ids to `ids`."""
    if not isinstance(tokens, list | None) or len(tokens or []) > _MAX_ADDED:
        raise InvalidStep(f"its added_tokens are not a list of at most {_MAX_ADDED:,}")
    by_id = {number: token for token, number in ids.items()}
    results: list[dict[str, Any]] = []
    for each in tokens or []:
        if not isinstance(each, dict):
            raise InvalidStep("one of its added_tokens is not an object")
        content, number = text(1, _MAX_ADDED_LENGTH)(each.get("content")), _id(each.get("id"))
        if ids.get(content, number) != number or by_id.get(number, content) != content:
            raise InvalidStep(f"its added token {content[:40]!r} has another id: {number:,}")
        ids[content], by_id[number] = number, content
        flags = {name: flag(each.get(name, False)) for name in _ADDED_FLAGS}
        results.append({"id": number, "content": content, **flags})
    if sum(len(each["content"]) for each in results) > _MAX_ADDED_CHARACTERS:
        limit = f"{_MAX_ADDED_CHARACTERS:,}"
        raise InvalidStep(f"its added tokens have more than {limit} characters together")
    return results
