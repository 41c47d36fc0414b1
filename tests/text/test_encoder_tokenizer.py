"""Sentence encoders' tokenizers: what they have is let through, what an enemy wrote is not."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from bascule.base.folders import models_folder
from bascule.errors import BasculeError, InputError, ModelFileError, UnsupportedModelError
from bascule.text import check_unicode, make_tokenizer, open_tokenizer
from bascule.text.tokenizer_check import check_tokenizer
from tests.goldens.image_text import build_tokenizer
from tests.text.page_half import NodeTokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "ab", "é")
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
TEXTS = ["a b ab", "aab  b", "", "É ab?", "[SEP] a", "日 a", "a\u00a0b"]


def special(token: str, number: int) -> dict[str, Any]:
    return {"id": number, "content": token, **ADDED, "special": True}


def template(cls: str, sep: str, ids: dict[str, int]) -> dict[str, Any]:
    names = (cls, sep)
    ends = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [ends[0], text, ends[1]],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in names},
    }


def bert() -> dict[str, Any]:
    """As BERT's, DistilBERT's and, but for the names, MPNet's."""
    ids = {word: number for number, word in enumerate(WORDS)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(word, ids[word]) for word in WORDS[:4]],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template("[CLS]", "[SEP]", ids),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def roberta() -> dict[str, Any]:
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 7, "a": 4, "b": 5, "ab": 6}
    ids |= {"Ġ": 8, "Ġa": 9}
    level = {"add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {**special(t, ids[t]), "lstrip": t == "<mask>"} for t in ("<s>", "<mask>")
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **level},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", 2],
            "cls": ["<s>", 0],
            **level,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": ids,
            "merges": ["a b", "Ġ a"],
        },
    }


def modern_bert() -> dict[str, Any]:
    result = roberta()
    ids = result["model"]["vocab"]
    result["model"] |= {"merges": [["a", "b"]], "byte_fallback": False, "ignore_merges": False}
    result["normalizer"] = {"type": "NFC"}
    result["pre_tokenizer"]["use_regex"] = True
    result["post_processor"] = template("<s>", "</s>", ids)
    return result


def xlm_roberta() -> dict[str, Any]:
    vocab = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -3.5], ["▁a", -4]]
    vocab += [["b", -5.25], ["a", -5.5]]
    result = modern_bert()
    result["model"] = {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}
    result["added_tokens"] = [special("<s>", 0), special("</s>", 2)]
    result["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]},
        ],
    }
    result["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ],
    }
    return result


def clip() -> dict[str, Any]:
    return json.loads(build_tokenizer().to_str())


def newer_clip() -> dict[str, Any]:
    """As transformers 5 writes it."""
    result = clip()
    pattern = result["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    pattern["Regex"] = r"<\|startoftext\|>|<\|endoftext\|>|" + pattern["Regex"]
    return result


KINDS = {f.__name__: f for f in (bert, roberta, modern_bert, xlm_roberta, clip, newer_clip)}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_encoders_have_gives_the_ids_of_the_file_itself(kind: str) -> None:
    data = json.dumps(KINDS[kind]()).encode()
    expected = [encoding.ids for encoding in Tokenizer.from_buffer(data).encode_batch(TEXTS)]
    assert any(len(row) > 4 for row in expected)
    assert (await open_tokenizer(data, 64)).encode(TEXTS) == expected
    assert NodeTokenizer(check_tokenizer(data, "t").json).encode(TEXTS) == expected


async def test_engines_agree_on_spaces_and_on_a_words_last_sigma() -> None:
    texts = ["ΟΔΟΣ ΣΣ", "a\u0085b", "a\ufeffb", "!\ufeff\u200b?", "İı ẞ", "a<|endoftext|>b", "!'s"]
    data = json.dumps(clip()).encode()
    expected = [encoding.ids for encoding in Tokenizer.from_buffer(data).encode_batch(texts)]
    assert (await open_tokenizer(data, 64)).encode(texts) == expected
    assert NodeTokenizer(check_tokenizer(data, "t").json).encode(texts) == expected


async def test_the_real_one_passes_whole() -> None:
    data = (models_folder() / "all-MiniLM-L6-v2" / "tokenizer.json").read_bytes()
    result, clean = json.loads(data), json.loads(check_tokenizer(data, "t").json)
    assert check_tokenizer(data, "t").n_tokens == 30_522
    for name in ("model", "added_tokens", "normalizer", "pre_tokenizer"):
        assert clean[name] == result[name]


def step(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def replacing(pattern: object, content: object) -> dict[str, Any]:
    return step("Replace", pattern=pattern, content=content)


def charsmap(mapped: bytes, trie: bytes = b"\0\0\0\0") -> dict[str, Any]:
    raw = len(trie).to_bytes(4, "little") + trie + mapped
    return step("Precompiled", precompiled_charsmap=base64.b64encode(raw).decode())


def setting(part: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(told: dict[str, Any]) -> None:
        *path, last = part.split(".")
        for name in path:
            told = told[int(name) if isinstance(told, list) else name]
        told[last] = value

    return change


SINGLE = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A"}}]
HOSTILE: dict[str, tuple[str, object, type[BasculeError]]] = {
    "growing by replacements": (
        "normalizer",
        step("Sequence", normalizers=[replacing({"String": "a"}, "a" * 16)] * 9),
        ModelFileError,
    ),
    "a long replacement": ("normalizer", replacing({"String": "a"}, "a" * 10**6), ModelFileError),
    "an empty pattern": ("normalizer", replacing({"String": ""}, "a"), ModelFileError),
    "endless expression": (
        "normalizer",
        replacing({"Regex": "(a+)+$"}, "b"),
        UnsupportedModelError,
    ),
    "endless cut": (
        "pre_tokenizer",
        step("Split", pattern={"Regex": "(a|aa)+$"}, behavior="Removed", invert=False),
        UnsupportedModelError,
    ),
    "unknown normalizer": ("normalizer", step("Prepend", prepend="x" * 999), UnsupportedModelError),
    "unknown pre-tokenizer": (
        "pre_tokenizer",
        step("FixedLength", length=0),
        UnsupportedModelError,
    ),
    "many steps": ("normalizer", step("Sequence", normalizers=[step("NFC")] * 99), ModelFileError),
    "sequences in sequences": (
        "normalizer",
        step("Sequence", normalizers=[step("Sequence", normalizers=[step("Sequence")] * 9)] * 9),
        ModelFileError,
    ),
    "no trie": ("normalizer", charsmap(b"", b""), ModelFileError),
    "a charsmap of lies": (
        "normalizer",
        step("Precompiled", precompiled_charsmap="/////w=="),
        ModelFileError,
    ),
    "a charsmap that is no base64": (
        "normalizer",
        step("Precompiled", precompiled_charsmap="?"),
        ModelFileError,
    ),
    "a charsmap to long texts": ("normalizer", charsmap(b"x" * 65 + b"\0"), ModelFileError),
    "a wide metaspace": ("pre_tokenizer", step("Metaspace", replacement="xx"), ModelFileError),
    "no unknown token": ("model.unk_token", "[MISSING]", ModelFileError),
    "endless words": ("model.max_input_chars_per_word", 10**9, ModelFileError),
    "no model": ("model", None, ModelFileError),
    "a strange model": ("model.type", "WordLevel", UnsupportedModelError),
    "a huge id": ("model.vocab.a", 2**40, ModelFileError),
    "an id twice": ("model.vocab.a", 5, ModelFileError),
    "a fraction as an id": ("model.vocab.a", 4.0, ModelFileError),
    "a long token": ("model.vocab", {"[UNK]": 0, "a" * 300: 1}, ModelFileError),
    "added twice": ("added_tokens", [special("a", 4), special("b", 4)], ModelFileError),
    "many added": ("added_tokens", [special(f"x{i}", i + 9) for i in range(5000)], ModelFileError),
    "a long added one": ("added_tokens", [special("x" * 200, 9)], ModelFileError),
    "an empty added one": ("added_tokens", [special("", 9)], ModelFileError),
    "added long ones": (
        "added_tokens",
        [special(f"{i:0128}", i + 9) for i in range(600)],
        ModelFileError,
    ),
    "another id at the ends": (
        "post_processor",
        {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 2]},
        ModelFileError,
    ),
    "a template without text": ("post_processor.single", SINGLE[:1], ModelFileError),
    "a long template": ("post_processor.single", [*SINGLE, *SINGLE[:1] * 99], ModelFileError),
    "no special tokens": ("post_processor.special_tokens", [], ModelFileError),
    "more tokens than fit": ("post_processor.single", [*SINGLE, *SINGLE[:1] * 9], ModelFileError),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_an_enemy_wrote_is_refused(name: str) -> None:
    part, value, kind = HOSTILE[name]
    result = copy.deepcopy(bert())
    setting(part, value)(result)
    with pytest.raises(kind, match=r"tokenizer\.json"):
        await open_tokenizer(json.dumps(result).encode(), 8)


@pytest.mark.parametrize(
    ("kind", "part", "value"),
    [
        ("roberta", "model.merges", ["a c"]),
        ("roberta", "model.merges", ["ab"]),
        ("roberta", "model.merges", None),
        ("roberta", "model.dropout", 0.5),
        ("clip", "model.end_of_word_suffix", 5),
        ("clip", "model.end_of_word_suffix", "</w>" * 9),
        ("roberta", "model.continuing_subword_prefix", "####"),
        ("roberta", "model.vocab.", 10),
        ("roberta", "post_processor.sep", ["</s>", True]),
        ("xlm_roberta", "model.unk_id", None),
        ("xlm_roberta", "model.unk_id", 99),
        ("xlm_roberta", "model.vocab", [["a", float("inf")]]),
        ("xlm_roberta", "model.vocab", [["a", 1], ["a", 2]]),
        ("xlm_roberta", "model.vocab", [["", 1]]),
        ("xlm_roberta", "model.vocab", {"a": 1}),
    ],
)
async def test_so_are_other_models(kind: str, part: str, value: object) -> None:
    result = KINDS[kind]()
    setting(part, value)(result)
    with pytest.raises(BasculeError, match=r"tokenizer\.json"):
        await open_tokenizer(json.dumps(result).encode(), 8)


async def test_more_tokens_than_the_model_has_embeddings() -> None:
    data = json.dumps(bert()).encode()
    await open_tokenizer(data, 8, n_embeddings=9)
    with pytest.raises(ModelFileError, match="9 tokens, and the model 8 embeddings"):
        await open_tokenizer(data, 8, n_embeddings=8)


async def test_a_panic_of_the_library_is_an_error_of_ours() -> None:
    result = roberta()
    # The library cuts the prefix off each right part, also off one that is shorter.
    result["model"] |= {"continuing_subword_prefix": "####", "merges": ["a b"]}
    with pytest.raises(ModelFileError, match="not sound"):
        await make_tokenizer(json.dumps(result).encode(), 8)


async def test_what_the_library_says_of_a_text_is_an_error_of_ours() -> None:
    result = bert()
    del result["model"]["vocab"]["[UNK]"]
    result["added_tokens"] = []
    tokenizer = await make_tokenizer(json.dumps(result).encode(), 8)
    with pytest.raises(ModelFileError, match="fails on a text"):
        tokenizer.encode(["z"])


def test_half_a_character() -> None:
    check_unicode("aé😀", "text")
    with pytest.raises(InputError, match=r"x: .* a lone surrogate \(U\+DC80\) at index 1"):
        check_unicode("a\udc80", "x")
