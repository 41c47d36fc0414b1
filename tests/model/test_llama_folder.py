"""Llamas in safetensors on every native tier, held to transformers on the same numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule import LanguageModel
from bascule.model.sampler import GREEDY
from bascule.tiers.selector import OpenedTier, open_tier
from tests.goldens import cosines
from tests.goldens.llama import TINY_NAMES, TinyName, tiny
from tests.goldens.llama_folder import write_folder


@pytest.fixture(params=("webgpu", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[OpenedTier]:
    """Each tier once a test; models share its device."""
    found = await open_tier(request.param)
    yield found
    found.backend.close()


@pytest.mark.parametrize("name", TINY_NAMES)
async def test_a_folder_is_the_gguf_file_it_was_made_of(
    opened: OpenedTier, name: TinyName, tmp_path: Path
) -> None:
    golden = tiny(name)
    folder = write_folder(golden.path, tmp_path / "m")
    async with await bascule.load(golden.path, on=opened, cache_dtype="f32") as model:
        twin = await model.logits(golden.ids)
    async with await bascule.load(folder, on=opened, cache_dtype="f32") as model:
        assert isinstance(model, LanguageModel)
        assert model.quantization is None
        for chat in golden.chats:
            assert model.chat_ids(chat.messages) == chat.prompt_ids
            found = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
            assert chat.parts_at(found.ids) is None
            assert len(found.ids) == (32 if chat.end is None else chat.end)
            assert chat.end is None or found.text == chat.text
        logits = await model.logits(golden.ids)
    assert cosines(logits, golden.logits).min() > 0.99999
    assert np.abs(logits - golden.logits).max() < 2e-3
    assert cosines(logits, twin).min() > 0.99999
