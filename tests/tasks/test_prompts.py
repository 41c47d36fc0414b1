"""Prompts of sentence encoders: which one a call takes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError
from bascule.tasks.prompts import Prompts
from tests.goldens import TINY_BERT

PROMPTS = Prompts({"query": "q: ", "document": ""}, default="query")


@pytest.mark.parametrize(
    ("prompt", "name", "found"),
    [
        (None, None, "q: "),
        (None, "query", "q: "),
        (None, "document", ""),
        ("mine ", None, "mine "),
        ("", None, ""),
    ],
)
def test_the_prompt_of_a_call(prompt: str | None, name: str | None, found: str) -> None:
    assert PROMPTS.choose(prompt, name) == found


@pytest.mark.parametrize(
    ("prompt", "name", "words"),
    [
        (None, "passage", r"'query', 'document'.*found 'passage'.*prompt="),
        ("a", "query", "prompt or prompt_name, found both"),
        (3, None, "prompt: expected a string, found int"),
        ("\ud800", None, "embed, prompt.*UTF-8"),
        (None, ["query"], "prompt_name: expected a string, found list"),
    ],
)
async def test_prompts_that_are_refused(prompt: Any, name: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        PROMPTS.choose(prompt, name)


async def test_a_model_has_its_prompts_and_sets_them_before_texts(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(TINY_BERT, folder)
    (folder / "1_Pooling").mkdir()
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = [{"type": f"sentence_transformers.models.{n}", "path": p} for n, p in modules]
    library = {"prompts": {"query": "w9 w10 "}, "default_prompt_name": "query"}
    files = {"modules.json": listed, "1_Pooling/config.json": {"pooling_mode": "mean"}}
    for name, content in {**files, "config_sentence_transformers.json": library}.items():
        (folder / name).write_text(json.dumps(content))
    async with await bascule.load(folder, tier="cpu") as model:
        assert model.prompts == {"query": "w9 w10 ", "document": ""}
        by_default, plain = await model.embed("w4"), await model.embed("w9 w10 w4", prompt="")
        assert (await model.embed([], prompt_name="document")).shape == (0, model.dimension)
        with pytest.raises(InputError, match="prompt_name"):
            await model.embed("w4", prompt_name="passage")
    np.testing.assert_array_equal(by_default, plain)
