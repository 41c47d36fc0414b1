"""Pairs of texts as rows of tokens: what Hugging Face's tokenizers makes of the same file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text import open_pair_tokenizer
from bascule.text.pairs import joined, longest_first
from bascule.text.tokenizer_check import check_tokenizer
from tests.goldens.families import bert_words, roberta_words, unigram_words
from tests.text.page_half import NodeTokenizer

MANY = [" ".join(f"w{4 + i % 90}" for i in range(n)) for n in (1, 2, 5, 9, 10, 30)]
TEXTS = ["", *MANY, "w7 Übung [SEP] w8", "</s> w4"]


def no_template() -> Tokenizer:
    made = bert_words()
    data = json.loads(made.to_str())
    return Tokenizer.from_str(json.dumps({**data, "post_processor": None}))


def template_of_bert() -> Tokenizer:
    """As BERT's files have had it since 2021."""
    made = bert_words()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    made.__name__: made
    for made in (bert_words, template_of_bert, roberta_words, unigram_words, no_template)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("maximum", [16, 17, 1000])
async def test_rows_are_those_of_tokenizers(kind: str, maximum: int) -> None:
    library = KINDS[kind]()
    data = library.to_str().encode()
    tokenizer, templates = await open_pair_tokenizer(data, maximum, n_embeddings=1000)
    bare = tokenizer.encode(TEXTS, special=False)
    assert NodeTokenizer(check_tokenizer(data, "t").json).encode(TEXTS, special=False) == bare
    assert templates.pair is not None
    uncut = {pair: library.encode(*pair) for pair in product(TEXTS, TEXTS)}
    library.enable_truncation(maximum)
    for (first, a), (second, b) in product(zip(TEXTS, bare, strict=True), repeat=2):
        expected = library.encode(first, second)
        row = joined(templates.pair, a, b, maximum)
        assert (row.ids, row.types) == (expected.ids, expected.type_ids)
        assert row.n_uncut == len(uncut[first, second].ids)
    for text, ids in zip(TEXTS, bare, strict=True):
        assert joined(templates.single, ids, [], maximum).ids == library.encode(text).ids


def test_the_longer_text_is_cut_first() -> None:
    assert longest_first(3, 4, 7) == (3, 4)
    assert longest_first(3, 9, 7) == (3, 4)
    assert longest_first(9, 3, 7) == (4, 3)
    assert longest_first(9, 9, 7) == (3, 4)
    assert longest_first(10, 9, 7) == (4, 3)
    assert longest_first(5, 5, 0) == (0, 0)


async def test_templates_that_lie_in_each_other_are_refused() -> None:
    result = json.loads(bert_words().to_str())
    result["post_processor"] = {"type": "Sequence", "processors": [result["post_processor"]] * 2}
    with pytest.raises(UnsupportedModelError, match="several steps of its post_processor"):
        await open_pair_tokenizer(json.dumps(result).encode(), 64, n_embeddings=1000)


PIECE: dict[str, Any] = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
FIRST, SECOND = ({"Sequence": {"id": text, "type_id": 0}} for text in "AB")
UNSOUND: list[Any] = [
    None,
    [],
    [FIRST],
    [FIRST, FIRST, SECOND],
    [FIRST, SECOND, *[PIECE] * 20],
    [FIRST, {"Sequence": {"id": "C", "type_id": 0}}],
    [FIRST, {"Sequence": {"id": "B", "type_id": 2}}],
    [FIRST, {"Sequence": {"id": "B", "type_id": True}}],
    [FIRST, {"Sequence": {"id": "B", "type_id": -1}}],
    [FIRST, SECOND, {"SpecialToken": {"id": "[NONE]", "type_id": 0}}],
    [FIRST, SECOND, {"SpecialToken": {"id": "[SEP]", "type_id": 1 << 40}}],
]


@pytest.mark.parametrize("pair", UNSOUND, ids=[str(pair)[:50] for pair in UNSOUND])
async def test_an_unsound_pair_is_none(pair: Any) -> None:
    result = copy.deepcopy(json.loads(template_of_bert().to_str()))
    result["post_processor"]["pair"] = pair
    _, templates = await open_pair_tokenizer(json.dumps(result).encode(), 64, n_embeddings=1000)
    assert templates.pair is None
    assert templates.single == ((2, 0), ("A", 0), (3, 0))


async def test_texts_need_room_beside_the_template() -> None:
    data = bert_words().to_str().encode()
    with pytest.raises(ModelFileError, match="adds 2 tokens to each text, of 2 at most"):
        await open_pair_tokenizer(data, 2, n_embeddings=1000)
    _, templates = await open_pair_tokenizer(data, 3, n_embeddings=1000)
    assert templates.pair is None
