"""Token ids of awkward texts; the page's tokenizer is held to the same list in e2e."""

from __future__ import annotations

import pytest

from bascule.base.folders import models_folder
from bascule.errors import ModelFileError
from bascule.text import open_tokenizer
from tests.goldens import TINY_BERT, awkward


async def test_awkward_texts() -> None:
    texts, ids = awkward()
    data = (models_folder() / "all-MiniLM-L6-v2" / "tokenizer.json").read_bytes()
    tokenizer = await open_tokenizer(data, 256)
    assert tokenizer.encode(texts) == ids
    assert max(len(row) for row in ids) == 256
    assert tokenizer.encode([]) == []


async def test_truncation_keeps_the_special_tokens() -> None:
    data = (TINY_BERT / "tokenizer.json").read_bytes()
    tokenizer = await open_tokenizer(data, 4)
    assert tokenizer.encode(["w9 w10 w11 w12"]) == [[2, 9, 10, 3]]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
async def test_unsound_files_are_told(data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        await open_tokenizer(data, 16)
