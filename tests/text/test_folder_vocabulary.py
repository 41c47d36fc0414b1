"""A folder's tokenizer.json: ids of its makers' library on both sides, and what an enemy wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bascule.errors import BasculeError, ModelFileError, UnsupportedModelError
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from bascule.text.language import LanguageTokenizer
from bascule.text.tokenizer_native import NativeTokenizer
from tests.goldens.llama import tiny, tiny_folder
from tests.goldens.llama_folder import write_folder
from tests.text.page_half import NodeTokenizer
from tests.text.strings import random_text

FOLDER = tiny_folder().path
LLAMA3 = (FOLDER / "tokenizer.json").read_bytes()
FILES = TokenizerFiles(
    "m", LLAMA3, (FOLDER / "tokenizer_config.json").read_bytes(), b"{{ bos_token }}"
)
BEGIN, END, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"


def files(change: Callable[[dict[str, Any]], Any] | None = None, **config: Any) -> TokenizerFiles:
    """The files with a change in tokenizer.json, and others in tokenizer_config.json."""
    result = json.loads(LLAMA3)
    if change is not None:
        change(result)
    assert FILES.config is not None
    changed = json.dumps(json.loads(FILES.config) | config).encode()
    return replace(FILES, tokenizer=json.dumps(result).encode(), config=changed)


def put(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Set what stands at a path of keys; a number is an index."""

    def change(told: Any) -> None:
        for key in path[:-1]:
            told = told[int(key) if key.isdecimal() else key]
        told[int(path[-1]) if path[-1].isdecimal() else path[-1]] = to

    return change


def of_users(flag: str, *, to: Any) -> Callable[[dict[str, Any]], None]:
    """Set a flag of an added token that is none of control."""

    def change(fields: Any) -> None:
        fields["added_tokens"][0] |= {"special": False, flag: to}

    return change


def tokenizer_of(given: TokenizerFiles) -> LanguageTokenizer:
    vocabulary = read_folder_vocabulary(given)
    return LanguageTokenizer(
        vocabulary, NativeTokenizer.from_json(vocabulary.tokenizer_json(), None)
    )


@pytest.mark.parametrize("name", ["llama3", "smollm", "removed"])
def test_ids_are_those_of_the_makers_library(name: str, tmp_path: Path) -> None:
    data = LLAMA3
    if name == "smollm":
        folder = write_folder(tiny("tiny-q4_1").path, tmp_path / "m")
        data = (folder / "tokenizer.json").read_bytes()
    if name == "removed":
        split = put("pre_tokenizer", "pretokenizers", "0", "behavior", to="Removed")
        result = json.loads(data)
        split(result)
        put("pre_tokenizer", "pretokenizers", "0", "invert", to=True)(result)
        data = json.dumps(result).encode()
    makers = Tokenizer.from_buffer(data)
    native = tokenizer_of(TokenizerFiles("m", data))
    page = LanguageTokenizer(native.vocabulary, NodeTokenizer(native.vocabulary.tokenizer_json()))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    texts = [random_text(source) for _ in range(1000)]
    texts += [text + END + text + "<|im_start|>" for text in texts[:100]]
    for text in texts:
        expected = makers.encode(text, add_special_tokens=False).ids
        assert native.encode(text, special=True) == expected, text
        # What the makers' decoder gives is whole text; ours are its bytes.
        decoded = native.decode_bytes(expected, skip_special=False)
        assert decoded.decode() == makers.decode(expected, skip_special_tokens=False)
    parts = [part for text in texts for part in (*native.split(text), 0)]
    assert page.encode_parts(parts) == native.encode_parts(parts)


def test_what_the_files_say_of_special_tokens() -> None:
    made = read_folder_vocabulary(replace(FILES, ends=frozenset({7})))
    assert (made.text(made.bos), made.text(made.eos), made.adds_bos) == (BEGIN, END, True)
    assert made.ends == {7, made.control[END], made.control[TURN]}
    assert made.chat_template == "{{ bos_token }}"
    assert not read_folder_vocabulary(files(add_bos_token=False)).adds_bos
    plain = files(put("post_processor", to=None))
    assert not read_folder_vocabulary(plain).adds_bos
    assert read_folder_vocabulary(
        files(put("post_processor", to=None), add_bos_token=True)
    ).adds_bos
    other = files(bos_token={"content": TURN})
    assert read_folder_vocabulary(other).text(read_folder_vocabulary(other).bos) == BEGIN


def test_which_chat_template_is_taken() -> None:
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    for result, expected in (("c", "c"), (named, "b"), (named[:1], None), (None, None)):
        without = replace(files(chat_template=result), chat_template=None)
        assert read_folder_vocabulary(without).chat_template == expected
    with pytest.raises(ModelFileError, match="chat_template: expected a string"):
        read_folder_vocabulary(replace(files(chat_template=5), chat_template=None))
    with pytest.raises(ModelFileError, match=r"chat_template\.jinja: it is not UTF-8"):
        read_folder_vocabulary(replace(FILES, chat_template=b"\xff"))
    with pytest.raises(ModelFileError, match="a lone surrogate"):
        read_folder_vocabulary(replace(files(chat_template="\ud800"), chat_template=None))


def test_older_and_newer_ways_to_write_the_same() -> None:
    def older(told: dict[str, Any]) -> None:
        told["model"]["merges"] = [" ".join(merge) for merge in told["model"]["merges"]]
        del told["model"]["type"]

    def wrapped(told: dict[str, Any]) -> None:
        told["normalizer"] = {"type": "Sequence", "normalizers": []}
        told["decoder"] = None

    expected = read_folder_vocabulary(FILES)
    for change in (older, wrapped):
        assert read_folder_vocabulary(files(change)) == expected


def test_ids_that_no_token_has_are_unused() -> None:
    made = tokenizer_of(files(put("added_tokens", "4", "id", to=390)))
    assert made.n_tokens == 391
    assert made.encode(TURN, special=True) == [390]
    assert made.vocabulary.unused == set(range(383, 390))


UNSOUND: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (put("model", to=None), "it has no model"),
    (put("model", "vocab", to=[]), "no vocab"),
    (put("model", "vocab", to={}), "merges, number 0: expected two tokens"),
    (put("model", "vocab", "!", to="0"), "a token has the id 0, expected"),
    (put("model", "vocab", "!", to=True), "the id True"),
    (put("model", "vocab", "!", to=1), "two tokens have the id 1"),
    (put("model", "vocab", "!", to=-1), "the id -1"),
    (put("model", "vocab", "!", to=1 << 40), "the id 1099511627776"),
    (put("model", "vocab", "\ud800", to=400), "a lone surrogate"),
    (put("model", "vocab", "x" * 5000, to=400), "at most 4,096 characters"),
    (put("model", "merges", to=None), "no merges"),
    (put("model", "merges", "0", to=["h"]), "is not a pair"),
    (put("model", "merges", "0", to=["h", "e", "y"]), "is not a pair"),
    (put("model", "merges", "0", to=["h ", "e"]), "is not a pair"),
    (put("model", "merges", "0", to="he"), "merges, number 0: expected two tokens"),
    (put("model", "merges", "0", to=["zz", "zz"]), "merges, number 0: expected two tokens"),
    (put("model", "ignore_merges", to=1), "ignore_merges is not a boolean"),
    (put("added_tokens", to={}), "added_tokens are not a list"),
    (put("added_tokens", "0", to=5), "added_tokens has no content"),
    (put("added_tokens", "0", "id", to=None), "the id None"),
    (put("added_tokens", "0", "id", to=3), "two tokens have the id 3"),
    (put("added_tokens", "2", "content", to="!"), "each token once"),
    (put("added_tokens", "2", "content", to=""), "control tokens of 2 to 128"),
    (put("post_processor", "processors", "1", "single", "0", "SpecialToken", "id", to="<x>"),
     "'<x>' is none of the tokens"),
]  # fmt: skip
OTHERS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (put("model", "type", to="WordPiece"), "made by 'WordPiece', not by a 'BPE'"),
    (put("model", "byte_fallback", to=True), "falls back to bytes"),
    (put("model", "dropout", to=0.1), "by chance"),
    (put("model", "continuing_subword_prefix", to="##"), "inner tokens"),
    (put("model", "end_of_word_suffix", to="</w>"), "last tokens"),
    (put("decoder", to={"type": "Metaspace"}), "decodes by other rules"),
    (put("normalizer", to={"type": "Lowercase"}), r"normalised by \['Lowercase'\]"),
    (put("pre_tokenizer", to=None), "not bytes in the end"),
    (put("pre_tokenizer", to={"type": "Metaspace"}), "words are cut by"),
    (put("pre_tokenizer", "pretokenizers", to=7), "has no pretokenizers"),
    (put("pre_tokenizer", "pretokenizers", "1", "add_prefix_space", to=True), "begin with a space"),
    (put("pre_tokenizer", "pretokenizers", "0", "pattern", "Regex", to="(a+)+b"), r"\(a\+\)\+b"),
    (put("pre_tokenizer", "pretokenizers", "0", "pattern", to={"String": " "}), "'Split'"),
    (put("pre_tokenizer", "pretokenizers", "0", "behavior", to="Removed"), "'Split'"),
    (put("pre_tokenizer", "pretokenizers", "0", to={"type": "Digits"}), "'Digits'"),
    (put("post_processor", to={"type": "BertProcessing"}), "post_processor does more"),
    (put("post_processor", "processors", to=3), "post_processor does more"),
    (put("post_processor", "processors", "1", "single", to=[]), "post_processor does more"),
    (of_users("lstrip", to=True), "has the flag lstrip"),
    (of_users("rstrip", to=True), "has the flag rstrip"),
    (put("added_tokens", "0", "rstrip", to=1), "has the flag rstrip"),
    (put("added_tokens", "1", "single_word", to=True), "has the flag single_word"),
]


@pytest.mark.parametrize(("change", "words"), UNSOUND, ids=[words for _, words in UNSOUND])
def test_unsound_files_are_told(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_folder_vocabulary(files(change))


@pytest.mark.parametrize(("change", "words"), OTHERS, ids=[words for _, words in OTHERS])
def test_other_tokenizers_are_named(change: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        read_folder_vocabulary(files(change))
    assert "byte-level BPE" in caught.value.hint


def test_bytes_that_become_another_token() -> None:
    def unknown(told: dict[str, Any]) -> None:
        told["model"]["unk_token"] = TURN

    assert read_folder_vocabulary(files(unknown))  # all bytes are there, so none is unknown
    with pytest.raises(UnsupportedModelError, match="unknown bytes"):
        read_folder_vocabulary(
            files(lambda told: (unknown(told), put("model", "vocab", to={"!": 0})(told)))
        )


def test_unsound_configurations_are_told() -> None:
    for config, words in (
        ({"bos_token": 5}, "bos_token is not a text"),
        ({"eos_token": "<nothing>"}, "'<nothing>' is none of the tokens"),
        ({"add_bos_token": 1}, "add_bos_token: expected a boolean"),
        ({"add_eos_token": True}, "add_eos_token"),
    ):
        with pytest.raises(BasculeError, match=words):
            read_folder_vocabulary(files(**config))
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(
            ModelFileError, match=r"tokenizer.json: it(s containers| is not (a )?JSON)"
        ):
            read_folder_vocabulary(replace(FILES, tokenizer=data))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 400), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
PATHS = [
    ("model",), ("model", "vocab"), ("model", "vocab", "!"), ("model", "merges"),
    ("model", "merges", "3"), ("model", "unk_token"), ("model", "type"), ("added_tokens",),
    ("added_tokens", "2"), ("added_tokens", "2", "id"), ("added_tokens", "2", "special"),
    ("normalizer",), ("pre_tokenizer",), ("pre_tokenizer", "pretokenizers"),
    ("pre_tokenizer", "pretokenizers", "0"), ("pre_tokenizer", "pretokenizers", "0", "pattern"),
    ("post_processor",), ("post_processor", "processors"),
    ("post_processor", "processors", "1", "single"),
    ("post_processor", "processors", "1", "single", "0"), ("decoder",),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), values)
def test_any_file_gives_a_tokenizer_or_an_error(path: tuple[str, ...], value: Any) -> None:
    try:
        made = tokenizer_of(files(put(*path, to=value)))
    except BasculeError:
        return
    assert made.encode("hello", special=True)
