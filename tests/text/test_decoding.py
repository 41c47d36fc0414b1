"""Token ids back to text: natively and in the page's half, as the library reads the whole file."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

import bascule
from bascule.base.folders import models_folder
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.text import open_tokenizer
from bascule.text.encoder import EncoderTokenizer
from bascule.text.tokenizer_check import check_tokenizer
from tests.text.page_half import NodeTokenizer
from tests.text.test_encoder_tokenizer import KINDS, bert

MINILM = models_folder() / "all-MiniLM-L6-v2"
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


# As the published files have it; the other kinds have theirs.
DECODERS = {"xlm_roberta": METASPACE}

# What trim() of JavaScript takes from both ends: not U+001C to U+001F, which str.strip() takes.
JS_BLANKS = "\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    chr(0x2000 + i) for i in range(11)
)


def whole_file(kind: str) -> dict[str, Any]:
    config = KINDS[kind]()
    return {**config, "decoder": DECODERS.get(kind, config["decoder"])}


@pytest.mark.parametrize("skip_special", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_ids_become_the_text_that_the_library_gives(
    kind: str, skip_special: bool, rng: np.random.Generator
) -> None:
    config = whole_file(kind)
    data = json.dumps(config).encode()
    whole = Tokenizer.from_buffer(data)
    known = sorted(whole.get_vocab().values())
    rows = [rng.choice(known, size).tolist() for size in (1, 2, 7, 60)]
    rows += [encoding.ids for encoding in whole.encode_batch(["a b ab", "ab aab?", "", "É a"])]
    expected = [whole.decode(row, skip_special_tokens=skip_special) for row in rows]
    if config["model"].get("end_of_word_suffix"):  # what transformers does behind the library
        expected = [text.replace("</w>", " ") for text in expected]
        expected = [text.strip(JS_BLANKS) for text in expected] if skip_special else expected
    assert any(expected)
    native = await open_tokenizer(data, 64)
    assert [native.decode(row, skip_special=skip_special) for row in rows] == expected
    page = NodeTokenizer(check_tokenizer(data, "t").json)
    assert page.decode_all(rows, skip_special=skip_special) == expected


@pytest.mark.parametrize("end", [0x1C, 0x1F, 0x85, 0xA0, 0x2003, 0x200B, 0x3000, 0xFEFF, 9, 32])
async def test_the_ends_of_a_clip_text_lose_the_same_blanks_everywhere(end: int) -> None:
    config = KINDS["clip"]()
    data = json.dumps(config).encode()
    vocabulary = config["model"]["vocab"]
    text = f"{chr(end)}a{chr(end)}"
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    ids = [vocabulary[letter] for letter in pieces[0][0]]
    native = (await open_tokenizer(data, 64)).decode(ids, skip_special=True)
    assert native == text.strip(JS_BLANKS)
    page = NodeTokenizer(check_tokenizer(data, "t").json)
    assert page.decode(ids, skip_special=True) == native


async def test_a_text_comes_back_from_the_real_tokenizer() -> None:
    data = (MINILM / "tokenizer.json").read_bytes()
    tokenizer = EncoderTokenizer(await open_tokenizer(data, 8), 30_522)
    text = "a drawbridge that tips, between two unbelievably long sides."
    bare = tokenizer.encode(text, special=False)
    assert tokenizer.decode(bare) == text
    assert tokenizer.encode(text) == [101, *bare[:6], 102]
    assert tokenizer.count(text) == len(bare) + 2
    assert tokenizer.decode([101, *bare[:2], 102], skip_special=False).startswith("[CLS] a ")
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    "decoder",
    [None, {"type": "CTC"}, {"type": "Sequence", "decoders": []}, {"type": []}, {}, "WordPiece"],
)
async def test_without_a_known_decoder_texts_are_still_read(decoder: object) -> None:
    data = json.dumps({**bert(), "decoder": decoder}).encode()
    tokenizer = EncoderTokenizer(await open_tokenizer(data, 8), 9)
    assert tokenizer.encode("a b") == [2, 4, 5, 3]
    with pytest.raises(UnsupportedModelError, match="no decoder that Bascule knows"):
        tokenizer.decode([4])
    page = NodeTokenizer(check_tokenizer(data, "t").json)
    assert page.decode_all([[4]], skip_special=True) is None


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "WordPiece", "prefix": 5, "cleanup": True},
        {"type": "WordPiece", "prefix": "#" * 17, "cleanup": True},
        {"type": "ByteLevel", "add_prefix_space": "yes"},
        {**METASPACE, "replacement": "▁▁"},
        {**METASPACE, "prepend_scheme": "sometimes"},
    ],
)
async def test_a_damaged_decoder_is_refused(decoder: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        await open_tokenizer(json.dumps({**bert(), "decoder": decoder}).encode(), 8)


async def test_ids_that_only_pad_the_embedding_have_no_text() -> None:
    data = json.dumps(whole_file("clip")).encode()
    n_tokens = check_tokenizer(data, "t").n_tokens
    tokenizer = EncoderTokenizer(await open_tokenizer(data, 8), n_tokens + 8)
    ids = tokenizer.encode("a", special=False)
    assert tokenizer.decode([*ids, n_tokens, n_tokens + 7]) == tokenizer.decode(ids) == "a"
    page = NodeTokenizer(check_tokenizer(data, "t").json)
    assert page.decode([*ids, n_tokens, n_tokens + 7], skip_special=True) == "a"
    assert page.decode([n_tokens], skip_special=True) == ""


async def test_a_models_tokenizer_counts_what_it_reads_and_names_bad_input() -> None:
    texts = ["a bridge that tips", "unbelievable"]
    async with await bascule.load(MINILM, tier="cpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        found = await model.embed(texts)
        tokenizer = model.tokenizer
        assert [tokenizer.count(text) for text in texts] == list(found.n_tokens)
        assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
        for bad in (b"w4", 4, ["w4"], "\ud800"):
            with pytest.raises(InputError, match="text"):
                tokenizer.encode(bad)  # pyright: ignore[reportArgumentType]
            with pytest.raises(InputError, match="text"):
                tokenizer.count(bad)  # pyright: ignore[reportArgumentType]
        for wrong in ([-1], [tokenizer.n_tokens], [0.5], "w4"):
            with pytest.raises(InputError, match="ids"):
                tokenizer.decode(wrong)  # pyright: ignore[reportArgumentType]
