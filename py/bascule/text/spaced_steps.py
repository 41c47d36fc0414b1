"""Read the steps of a SentencePiece-like tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from bascule.errors import ModelFileError
from bascule.text.pretokenizers import UnknownCut, kind_of, steps_of
from bascule.text.spaced import BYTES, SPACE, Prefix, SpacedPieces

_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_FROM_SPACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
# Spaces have been replaced before, so it splits nothing.
_NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}


def is_spaced(config: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether spaces become "▁" in a tokenizer.json."""
    steps = steps_of(config.get("normalizer"), "normalizers")
    steps = [*steps, *steps_of(config.get("pre_tokenizer"), "pretokenizers")]
    kinds = {kind_of(step) for step in steps}
    return model.get("type") == "Unigram" or _TO_SPACE in steps or "Metaspace" in kinds


def spaced_of(
    config: Mapping[str, Any], model: Mapping[str, Any], tokens: Sequence[str], place: str
) -> SpacedPieces:
    """Read the steps and the model; ModelFileError, and UnknownCut for an unknown step."""
    result = _texts(config)
    to_bytes = _flag(model, "byte_fallback", place)
    if to_bytes and (lacking := set(BYTES).difference(tokens)):
        raise ModelFileError(place, f"it falls back to bytes, and has no token {min(lacking)}")
    result = replace(result, stripped=_strips(config.get("decoder"), to_bytes), to_bytes=to_bytes)
    if model.get("type") == "Unigram":
        scores, unknown = _scores(model, place), model.get("unk_id")
        if type(unknown) is not int or not 0 <= unknown < len(scores):
            raise ModelFileError(place, f"its unk_id is {str(unknown)[:40]}, which is not a token")
        return replace(result, scores=scores, unknown=unknown)
    text = model.get("unk_token")
    if text is not None and text not in tokens:
        raise ModelFileError(place, f"its unk_token is {str(text)[:40]!r}, which is not a token")
    ignores_merges = _flag(model, "ignore_merges", place)
    if ignores_merges and text is not None and not to_bytes:
        raise UnknownCut("it takes words whole and has a token for unknown ones")
    return replace(
        result,
        unknown=None if text is None else tokens.index(text),
        fuses_unknown=_flag(model, "fuse_unk", place),
        whole_words_first=ignores_merges,
    )


def unigram_ids(model: Mapping[str, Any], place: str) -> dict[str, int]:
    """Return the ids of a Unigram's tokens; ModelFileError if a token occurs twice."""
    results = {text: index for index, (text, _) in enumerate(_pairs(model, place))}
    if len(results) < len(model["vocab"]):
        raise ModelFileError(place, "a token occurs twice in its vocab")
    return results


def _scores(model: Mapping[str, Any], place: str) -> tuple[float, ...]:
    return tuple(score for _, score in _pairs(model, place))


def _pairs(model: Mapping[str, Any], place: str) -> list[tuple[str, float]]:
    vocab = model.get("vocab")
    results: list[tuple[str, float]] = []
    for each in vocab if isinstance(vocab, list) else [vocab]:
        match each:
            case [str(text), int() | float() as score] if isfinite(score):
                results.append((text, float(score)))
            case _:
                raise ModelFileError(place, f"{str(each)[:80]} is not a token with its score")
    return results


def _flag(config: Mapping[str, Any], key: str, place: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise ModelFileError(place, f"its {key} is not a boolean")
    return value


def _texts(config: Mapping[str, Any]) -> SpacedPieces:
    """Return how texts are written for the model."""
    prefix: Prefix = "never"
    replaced = False
    for step in steps_of(config.get("normalizer"), "normalizers"):
        if step == _TO_SPACE:
            replaced = True
        elif step == {"type": "Prepend", "prepend": SPACE}:
            prefix = "always"
        else:
            raise UnknownCut(f"its text is to be normalised by {str(step)[:80]}")
    cuts = steps_of(config.get("pre_tokenizer"), "pretokenizers")
    match cuts:
        case [] if replaced:
            return SpacedPieces(prefix)
        case [{"type": "Split", **rest}] if replaced:
            if {"type": "Split", **rest, "invert": False} == {**_NO_SPLIT, "invert": False}:
                return SpacedPieces(prefix)
        case [{"type": "Metaspace", **rest}] if prefix == "never":
            if rest.get("replacement") == SPACE and rest.get("str_rep", SPACE) == SPACE:
                splits = rest.get("split", True) is not False
                return SpacedPieces(_scheme(rest), once=True, splits=splits)
        case _:
            pass
    raise UnknownCut(f"its words are cut by {str(cuts)[:80]}")


def _scheme(config: Mapping[str, Any]) -> Prefix:
    """Return where a Metaspace adds a space; files older than the key have a boolean."""
    older = "always" if config.get("add_prefix_space", True) is True else "never"
    match config.get("prepend_scheme", older):
        case "always" | "first" | "never" as scheme:
            return scheme
        case other:
            raise UnknownCut(f"its prepend_scheme is {str(other)[:40]!r}")


def _strips(decoder: object, to_bytes: bool) -> bool:
    """Whether decoding drops the first space of a text; UnknownCut for another decoder."""
    steps = steps_of(decoder, "decoders")
    kinds = [kind_of(step) for step in steps]
    metaspace = steps[0] if kinds == ["Metaspace"] and not to_bytes else None
    if isinstance(metaspace, dict) and metaspace.get("replacement") == SPACE:
        return _scheme(metaspace) != "never"
    if steps and steps[0] == _FROM_SPACE and ("ByteFallback" in kinds) == to_bytes:
        rest = [kind for kind in kinds[1:] if kind not in ("ByteFallback", "Fuse")]
        if not rest or (rest == ["Strip"] and steps[-1] == _STRIP):
            return bool(rest)
    raise UnknownCut(f"it decodes by other rules, {str(kinds)[:80]}")
