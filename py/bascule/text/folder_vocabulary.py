"""The vocabulary of a Hugging Face folder: tokenizer.json and the files beside it, all untrusted.

A byte-level BPE, and SentencePiece's BPE or Unigram, become the same `Vocabulary` as in a GGUF
file, so that one tokenizer serves both; any other is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from bascule.base.json_object import TOKENIZER as TOKENIZER_LIMITS
from bascule.base.json_object import json_object
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text.pretokenizers import PreTokenizer, UnknownCut, pretokenizer_of
from bascule.text.spaced_steps import is_spaced, spaced_of, unigram_ids
from bascule.text.vocabulary import (
    BYTE_OF,
    CONTROL,
    MAX_TOKENS,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    make_vocabulary,
)

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A folder's files as bytes; `place` names the folder, which may lack all but the first.

    `ends` are the ids that end a model's answer, from its other files. With `bare` the
    post_processor is not read: the caller adds tokens around a text itself.
    """

    place: str
    tokenizer: bytes
    config: bytes | None = None
    chat_template: bytes | None = None
    ends: frozenset[int] = frozenset()
    bare: bool = False


def read_folder_vocabulary(files: TokenizerFiles) -> Vocabulary:
    """Check everything that a folder's files say of tokens.

    ModelFileError if they are unsound, UnsupportedModelError for another kind of tokenizer.
    """
    place = f"{files.place}/{TOKENIZER}"
    tokenizer = json_object(files.tokenizer, place, TOKENIZER_LIMITS)
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise ModelFileError(place, "it has no model")
    spaced = _asked(place, is_spaced, tokenizer, model)
    pre = None if spaced else _pre_tokenizer(tokenizer, model, place)
    unigram = model.get("type") == "Unigram"
    vocab: object = unigram_ids(model, place) if unigram else model.get("vocab")
    tokens, kinds = _tokens(vocab, tokenizer.get("added_tokens"), place)
    _check_text("".join(tokens), place)
    _check_kind(tokenizer, model, tokens, place, spaced=spaced)
    added = tokenizer.get("added_tokens") or []
    _check_added(added, place, spaced=spaced)
    if pre is None:
        pre = _asked(place, spaced_of, tokenizer, model, tokens, place)
    merges = () if unigram else _merges(model, place)
    metadata: dict[str, object] = {"tokens": tokens, "token_type": kinds, "merges": merges}
    metadata |= _from_config(
        files, _first_token(None if files.bare else tokenizer.get("post_processor"), place), tokens
    )
    vocabulary = make_vocabulary(metadata, pre, place)
    if unknown := sorted(i for i in files.ends if not 0 <= i < len(tokens)):
        told_of = f"eos_token_id {unknown[0]:,} is none of the {len(tokens):,} tokens"
        raise ModelFileError(files.place, told_of)
    return replace(
        vocabulary,
        ends=vocabulary.ends | files.ends,
        strips_before=_stripping(added, "lstrip"),
        strips_after=_stripping(added, "rstrip"),
    )


def _check_kind(
    config: Mapping[str, Any],
    model: Mapping[str, Any],
    tokens: Sequence[str],
    place: str,
    *,
    spaced: bool,
) -> None:
    """UnsupportedModelError for what merging alone does not do."""
    decoder = config.get("decoder")
    of_bytes = (
        ("falls back to bytes", model.get("byte_fallback")),
        ("has a token for unknown bytes", model.get("unk_token") and BYTE_OF.keys() - set(tokens)),
        ("decodes by other rules", decoder is not None and _type(decoder) != "ByteLevel"),
    )
    for problem, result in (
        *(() if spaced else of_bytes),
        ("leaves out merges by chance", model.get("dropout")),
        ("marks words' inner tokens", model.get("continuing_subword_prefix")),
        ("marks words' last tokens", model.get("end_of_word_suffix")),
    ):
        if result:
            raise _unsupported(place, f"it {problem}")


def _unsupported(place: str, problem: str) -> UnsupportedModelError:
    hint = (
        "Use a model with a byte-level BPE (GPT-2's, Llama 3's, Qwen's), with SentencePiece's BPE "
        "(Llama 2's, Gemma's), or its GGUF file."
    )
    return UnsupportedModelError(place, problem, hint=hint)


def _asked(place: str, read: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return what a reader of steps returns; an unknown step becomes UnsupportedModelError."""
    try:
        return read(*arguments)
    except UnknownCut as cut:
        raise _unsupported(place, f"{cut}") from None


def _type(value: object) -> str:
    result: object = value.get("type") if isinstance(value, dict) else value
    return str(result)[:40]


def _pre_tokenizer(config: Mapping[str, Any], model: Mapping[str, Any], place: str) -> PreTokenizer:
    # Files older than the key have a BPE's merges.
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise _unsupported(place, f"its tokens are made by {_type(model)!r}, not by a 'BPE'")
    ignores_merges = model.get("ignore_merges", False)
    if not isinstance(ignores_merges, bool):
        raise ModelFileError(place, "its ignore_merges is not a boolean")
    steps = (config.get("normalizer"), config.get("pre_tokenizer"))
    return _asked(place, partial(pretokenizer_of, whole_words_first=ignores_merges), *steps)


def _tokens(vocab: object, added: object, place: str) -> tuple[tuple[str, ...], list[int]]:
    """Return all tokens by id and their kinds; an id without a token is unused."""
    if not isinstance(vocab, dict):
        raise ModelFileError(place, "its model has no vocab")
    results: dict[int, tuple[str, int]] = {}
    for text, token in vocab.items():
        if _id(token, place) in results:
            raise ModelFileError(place, f"two tokens have the id {token}")
        results[token] = (text, NORMAL)
    if not isinstance(added, list | None):
        raise ModelFileError(place, "its added_tokens are not a list")
    for each in added or []:
        token, text, kind = _added(each, place)
        if results.get(token, (text, kind))[0] != text:
            raise ModelFileError(place, f"two tokens have the id {token}")
        results[token] = (text, kind)
    count = max(results, default=-1) + 1
    rows = [results.get(token, (f"[PAD{token}]", UNUSED)) for token in range(count)]
    return tuple(text for text, _ in rows), [kind for _, kind in rows]


def _check_text(text: str, place: str) -> None:
    """Reject lone surrogates, which JSON can escape and UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelFileError(place, "it has a lone surrogate") from None


def _id(token: object, place: str) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < MAX_TOKENS:
        problem = f"a token has the id {str(token)[:40]}, expected a number below {MAX_TOKENS:,}"
        raise ModelFileError(place, problem)
    return token


def _added(token: object, place: str) -> tuple[int, str, int]:
    """Return id, text and kind of an added token."""
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise ModelFileError(place, "one of its added_tokens has no content")
    text: str = token["content"]
    kind = CONTROL if token.get("special", False) is True else USER_DEFINED
    return _id(token.get("id"), place), text, kind


def _check_added(added: Iterable[Mapping[str, Any]], place: str, *, spaced: bool) -> None:
    """UnsupportedModelError for flags of added tokens that would change how a text is cut."""
    for token in added:
        # In byte-level tokenizers the library cuts at all but control tokens.
        ours = spaced or token.get("special", False) is True
        for flag in ("single_word", "lstrip", "rstrip"):
            is_read = ours and flag != "single_word" and token.get(flag) is True
            if token.get(flag, False) is not False and not is_read:
                text = token["content"][:40]
                raise _unsupported(place, f"its token {text!r} has the flag {flag}")


def _stripping(added: Iterable[Mapping[str, Any]], flag: str) -> frozenset[int]:
    return frozenset(token["id"] for token in added if token.get(flag, False) is True)


def _merges(model: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return each merge as two texts with a space between; newer files have pairs."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ModelFileError(place, "its model has no merges")
    return tuple(_merge(each, place) for each in merges)


def _merge(merge: object, place: str) -> str:
    if isinstance(merge, str):
        return merge
    pair = merge if isinstance(merge, list) else []
    texts = [part for part in pair if isinstance(part, str) and " " not in part]
    if len(pair) != 2 or len(texts) != 2:
        raise ModelFileError(place, f"its merge {str(merge)[:80]} is not a pair of tokens")
    return " ".join(texts)


def _first_token(processor: object, place: str) -> str | None:
    """Return the token that a post_processor puts before a text."""
    steps: object = [] if processor is None else [processor]
    if isinstance(processor, dict) and processor.get("type") == "Sequence":
        steps = processor.get("processors")
    first: str | None = None
    for step in steps if isinstance(steps, list) else [steps]:
        if _type(step) == "ByteLevel":  # it moves offsets alone
            continue
        single = step.get("single") if isinstance(step, dict) else None
        match single if _type(step) == "TemplateProcessing" else None:
            case [{"Sequence": _}]:
                pass
            case [{"SpecialToken": {"id": str(token)}}, {"Sequence": _}] if first is None:
                first = token
            case _:
                problem = "its post_processor does more than set one token before a text"
                raise _unsupported(place, problem)
    return first


def _from_config(
    files: TokenizerFiles, first: str | None, tokens: Sequence[str]
) -> dict[str, object]:
    """Read tokenizer_config.json into GGUF's keys; `first` is the post_processor's token."""
    place = f"{files.place}/{TOKENIZER_CONFIG}"
    config = {} if files.config is None else json_object(files.config, place)
    ids = {text: token for token, text in enumerate(tokens)}
    bos, eos = (_named(config, key, place) for key in ("bos_token", "eos_token"))
    for text in (first, bos, eos):
        if text is not None and text not in ids:
            raise ModelFileError(place, f"{text[:80]!r} is none of the tokens")
    adds = config.get("add_bos_token")
    if adds is None:
        adds, bos = first is not None, first or bos
    if config.get("add_eos_token", False) is not False:
        raise _unsupported(place, "it sets a token after each text (add_eos_token)")
    return {
        "bos_token_id": None if bos is None else ids[bos],
        "eos_token_id": None if eos is None else ids[eos],
        "add_bos_token": adds,
        "chat_template": _chat_template(files, config),
    }


def _named(config: Mapping[str, Any], key: str, place: str) -> str | None:
    """Return a special token's text, which may be in an object with its flags."""
    value = config.get(key)
    text: object = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise ModelFileError(place, f"its {key} is not a text")
    return text


def _chat_template(files: TokenizerFiles, config: Mapping[str, Any]) -> object:
    """Return the template of chat_template.jinja, else the config's (its "default" one)."""
    if files.chat_template is not None:
        try:
            return files.chat_template.decode()
        except UnicodeDecodeError:
            raise ModelFileError(f"{files.place}/{CHAT_TEMPLATE}", "it is not UTF-8") from None
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [
            each for each in template if isinstance(each, dict) and each.get("name") == "default"
        ]
        template = named[0].get("template") if named else None
    if isinstance(template, str):
        _check_text(template, f"{files.place}/{TOKENIZER_CONFIG}")
    return template
