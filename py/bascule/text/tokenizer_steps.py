"""The steps of a sentence encoder's tokenizer.json that may reach the library.

An allow-list: the steps of BERT, DistilBERT, MPNet, RoBERTa, ModernBERT and XLM-RoBERTa, with their
fields checked one by one. Only known regular expressions pass, since some never end, and a text
grows by a bounded factor.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bascule.text.pairs import Piece, Templates, n_special
from bascule.text.pretokenizers import cuts_words_alone, known_expression, known_replaced

MAX_STEPS = 16
# Without any template two texts follow each other.
_BARE = Templates((("A", 0),), (("A", 0), ("B", 1)))
# The longest fixed texts and prefixes.
MAX_WIDTH = 16
# How many times longer all replacements together may make a text.
_MAX_GROWTH = 8
_MAX_CHARSMAP_NBYTES = 1 << 20
# The longest in Unicode is the 33 bytes of U+FDFA.
_MAX_MAPPED_NBYTES = 64

Check = Callable[[object], Any]
Steps = list[dict[str, Any]]


class InvalidStep(Exception):
    """A step is damaged or hostile; the message says how."""


class UnknownStep(Exception):
    """A step is of a kind that encoders do not have; the message says which."""


def flag(value: object) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise InvalidStep(f"{_short(value)} is not a boolean")
    return value


def optional_flag(value: object) -> bool | None:
    """Return a boolean or None."""
    return None if value is None else flag(value)


def text(minimum: int, maximum: int) -> Check:
    """Check a string of `minimum` to `maximum` characters."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            raise InvalidStep(f"{_short(value)} is not a text of {minimum} to {maximum} characters")
        return value

    return check


def _one_of(*names: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise InvalidStep(f"{_short(value)} is none of {', '.join(names)}")
        return value

    return check


def _pattern(known: Callable[[str], str | None]) -> Check:
    def check(value: Any) -> dict[str, str]:
        match value:
            case {"String": written} if len(value) == 1:
                return {"String": text(1, MAX_WIDTH)(written)}
            case {"Regex": str(written)} if len(value) == 1:
                result = known(written)
                if result is None:
                    raise UnknownStep(f"the regular expression {written[:80]!r}")
                return {"Regex": result}
            case _:
                raise InvalidStep(f"{_short(value)} is not a pattern")

    return check


def _charsmap(value: Any) -> str:
    """Check SentencePiece's table in base64: the size of a trie, the trie, NUL-terminated texts."""
    if not isinstance(value, str) or len(value) > _MAX_CHARSMAP_NBYTES * 4 // 3 + 4:
        raise InvalidStep("its precompiled_charsmap is not a text of at most 1 MiB")
    try:
        raw = base64.b64decode(value, validate=True)
        trie_nbytes = int.from_bytes(raw[:4], "little")
        if trie_nbytes % 4 or not 0 < trie_nbytes <= len(raw) - 4:
            raise InvalidStep("its precompiled_charsmap has no trie")
        mapped = raw[4 + trie_nbytes :].decode()
    except (binascii.Error, ValueError):
        raise InvalidStep("its precompiled_charsmap is damaged") from None
    if max(len(each.encode()) for each in mapped.split("\0")) > _MAX_MAPPED_NBYTES:
        raise InvalidStep(f"it replaces a character by more than {_MAX_MAPPED_NBYTES} bytes")
    return value


_BEHAVIORS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
_BYTE_LEVEL = {"add_prefix_space": flag, "trim_offsets": flag, "use_regex": flag}
Fields = Mapping[str, Check]
_NORMALIZERS: Mapping[str, Fields] = MappingProxyType(
    {
        "BertNormalizer": {
            "clean_text": flag,
            "handle_chinese_chars": flag,
            "strip_accents": optional_flag,
            "lowercase": flag,
        },
        **{kind: {} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents")},
        "Strip": {"strip_left": flag, "strip_right": flag},
        "Precompiled": {"precompiled_charsmap": _charsmap},
        "Replace": {"pattern": _pattern(known_replaced), "content": text(0, MAX_WIDTH)},
    }
)
_PRETOKENIZERS: Mapping[str, Fields] = MappingProxyType(
    {
        **{kind: {} for kind in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")},
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": {
            "replacement": text(1, 1),
            "str_rep": text(1, 1),
            "prepend_scheme": _one_of("always", "first", "never"),
            "add_prefix_space": flag,
            "split": flag,
        },
        "Punctuation": {"behavior": _one_of(*_BEHAVIORS)},
        "Digits": {"individual_digits": flag},
        "Split": {
            "pattern": _pattern(known_expression),
            "behavior": _one_of(*_BEHAVIORS),
            "invert": flag,
        },
    }
)


_DECODERS: Mapping[str, Fields] = MappingProxyType(
    {
        "WordPiece": {"prefix": text(0, MAX_WIDTH), "cleanup": flag},
        "ByteLevel": _BYTE_LEVEL,
        "Metaspace": _PRETOKENIZERS["Metaspace"],
    }
)


def checked_normalizer(value: object) -> dict[str, Any] | None:
    """Return a `normalizer` of known steps; InvalidStep, UnknownStep."""
    steps = _steps(value, "normalizers", _NORMALIZERS)
    growth = 1.0
    for step in steps:
        if step["type"] == "Replace":
            pattern = step.get("pattern", {})
            shortest = len(pattern["String"]) if "String" in pattern else 1
            growth *= max(1.0, len(step.get("content", "")) / shortest)
    if growth > _MAX_GROWTH:
        raise InvalidStep(f"its normalizer makes a text {growth:,.0f} times as long")
    return _sequence(steps, "normalizers")


def checked_pretokenizer(value: object) -> dict[str, Any] | None:
    """Return a `pre_tokenizer` of known steps; InvalidStep, UnknownStep."""
    steps = _steps(value, "pretokenizers", _PRETOKENIZERS)
    patterns = [step.get("pattern", {}).get("Regex", "") for step in steps]
    if len(steps) == 2 and steps[1]["type"] == "ByteLevel" and cuts_words_alone(patterns[0]):
        steps[1]["use_regex"] = False  # engines differ on which characters are spaces there
    return _sequence(steps, "pretokenizers")


def checked_decoder(value: object) -> dict[str, Any] | None:
    """Return a `decoder` of one known step; None for any other: reading needs none. InvalidStep."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in _DECODERS:
        return None
    return _fields(kind, value, _DECODERS)


def checked_processor(
    value: object, ids: Mapping[str, int]
) -> tuple[dict[str, Any] | None, int, Templates | None]:
    """Return a `post_processor` of known steps, the number of tokens it adds, and its templates.

    `ids` are those of all tokens. None instead of templates if several steps add tokens.
    InvalidStep, UnknownStep.
    """
    steps: Steps = []
    results: list[Templates] = []
    for kind, step in _kinds(value, "processors"):
        if kind == "TemplateProcessing":
            checked, templates = _template(step, ids)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            checked, templates = _ends(kind, step, ids)
        else:
            checked, templates = _fields(kind, step, {"ByteLevel": _BYTE_LEVEL}), None
        steps.append(checked)
        results += [templates] if templates is not None else []
    one = (results or [_BARE])[0] if len(results) < 2 else None
    return _sequence(steps, "processors"), sum(n_special(t.single) for t in results), one


def _template(step: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[dict[str, Any], Templates]:
    """Return tokens around one text, and two if sound; the library gets the first."""
    pieces = _pieces(step.get("single"), step, ids)
    single: list[dict[str, Any]] = []
    specials: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        name = piece.name
        if piece.is_text:
            single.append({"Sequence": {"id": "A", "type_id": 0}})
        else:
            single.append({"SpecialToken": {"id": name, "type_id": 0}})
            specials[name] = {"id": name, "ids": [ids[name]], "tokens": [name]}
    texts = [piece for piece in single if "Sequence" in piece]
    if [piece.name for piece in pieces if piece.is_text] != ["A"]:
        raise InvalidStep("its template does not have the text once")
    both = [*texts, {"Sequence": {"id": "B", "type_id": 1}}]
    kind = {"type": "TemplateProcessing", "single": single, "pair": both}
    plain: tuple[Piece, ...] = tuple((_number(piece, ids), 0) for piece in pieces)
    templates = Templates(plain, _pair(step, ids))
    return {**kind, "special_tokens": specials}, templates


def _pair(step: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[Piece, ...] | None:
    """Return how two texts are joined; None if that is not sound, since few models need it."""
    try:
        pieces = _pieces(step.get("pair"), step, ids)
    except InvalidStep:
        return None
    texts = sorted(piece.name for piece in pieces if piece.is_text)
    typed = all(type(piece.kind) is int and piece.kind in (0, 1) for piece in pieces)
    if texts != ["A", "B"] or not typed:
        return None
    return tuple((_number(piece, ids), piece.kind) for piece in pieces)


class _TemplatePiece(NamedTuple):
    """A text by its letter, or a special token by its name; `kind` is the type, unchecked."""

    is_text: bool
    name: str
    kind: Any


def _number(piece: _TemplatePiece, ids: Mapping[str, int]) -> Literal["A", "B"] | int:
    if not piece.is_text:
        return ids[piece.name]
    return "A" if piece.name == "A" else "B"


def _pieces(
    listed: object, step: Mapping[str, Any], ids: Mapping[str, int]
) -> list[_TemplatePiece]:
    results: list[_TemplatePiece] = []
    for piece in listed if isinstance(listed, list) and len(listed) <= MAX_STEPS else [None]:
        match piece:
            case {"Sequence": {"id": "A" | "B" as text, **rest}}:
                results.append(_TemplatePiece(True, text, rest.get("type_id", 0)))
            case {"SpecialToken": {"id": str(name), **rest}}:
                match step.get("special_tokens"):
                    case {**known} if isinstance(known.get(name), dict):
                        token = known[name].get("ids")
                    case _:
                        token = None
                _check_token([name, *token] if isinstance(token, list) else None, ids)
                results.append(_TemplatePiece(False, name, rest.get("type_id", 0)))
            case _:
                raise InvalidStep(f"{_short(piece)} is not a part of a template")
    return results


def _ends(
    kind: str, step: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[dict[str, Any], Templates]:
    results: dict[str, Any] = {"type": kind}
    for name in ("sep", "cls"):
        _check_token(step.get(name), ids)
        results[name] = step[name]
    first, last = (ids[results[name][0]] for name in ("cls", "sep"))
    single: tuple[Piece, ...] = ((first, 0), ("A", 0), (last, 0))
    if kind == "RobertaProcessing":
        results |= {name: flag(step.get(name)) for name in ("trim_offsets", "add_prefix_space")}
        return results, Templates(single, (*single, (last, 0), ("B", 0), (last, 0)))
    return results, Templates(single, (*single, ("B", 1), (last, 1)))


def _check_token(added: object, ids: Mapping[str, int]) -> None:
    """Check a pair of a token's text and its id against the vocabulary."""
    match added:
        case [str(name), int(token)] if not isinstance(token, bool):
            if ids.get(name) != token:
                raise InvalidStep(f"its post_processor has another id for {name[:40]!r}: {token:,}")
        case _:
            raise InvalidStep(f"{_short(added)} is not a token with its id")


def _steps(value: object, inside: str, known: Mapping[str, Fields]) -> Steps:
    return [_fields(kind, step, known) for kind, step in _kinds(value, inside)]


def _kinds(value: object, inside: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return the steps of sequences, flattened, with their kinds."""
    waiting: list[object] = [] if value is None else [value]
    results: list[tuple[str, Mapping[str, Any]]] = []
    seen = 0
    while waiting:
        step = waiting.pop(0)
        seen += 1
        kind = step.get("type") if isinstance(step, dict) else None
        if not isinstance(step, dict) or not isinstance(kind, str):
            raise InvalidStep(f"{_short(step)} is not a step")
        if kind == "Sequence":
            inner: object = step.get(inside)
            if not isinstance(inner, list):
                raise InvalidStep(f"its sequence has no {inside}")
            waiting = [*inner[: MAX_STEPS + 1], *waiting]
        else:
            results.append((kind, step))
        if seen > 2 * MAX_STEPS or len(results) > MAX_STEPS:
            raise InvalidStep(f"it has more than {MAX_STEPS} {inside}")
    return results


def _fields(kind: str, step: Mapping[str, Any], known: Mapping[str, Fields]) -> dict[str, Any]:
    if kind not in known:
        raise UnknownStep(f"the step {kind[:40]!r}")
    fields = known[kind]
    return {"type": kind} | {name: fields[name](step[name]) for name in fields if name in step}


def _sequence(steps: Steps, inside: str) -> dict[str, Any] | None:
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", inside: steps}


def _short(value: object) -> str:
    return repr(value)[:80]
