"""The examples of the documentation run as they stand."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.compat import resource_pool
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# In place of the known models, small ones of their kinds.
SMALL = {"all-MiniLM-L6-v2": TINY_BERT, "SmolLM2-135M-Instruct": tiny("tiny-q4_1").path}


def examples(page: str, heading: str = "") -> list[str]:
    """The Python blocks of a page, or those below one of its headings."""
    text = (ROOT / page).read_text("utf-8")
    if heading:
        (text,) = re.findall(rf"^{heading}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    result = BLOCK.findall(text)
    assert result, page
    return result


async def run(code: str, names: dict[str, Any]) -> None:
    """Run a block that may await, as a notebook does."""
    ran = eval(compile(code, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if ran is not None:
        await ran


async def test_computing_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    embeddings = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    for code in examples("README.md", "## Compute"):
        await run(code, {"bascule": bascule, "embeddings": embeddings})
    shown = capsys.readouterr().out
    assert np.allclose(np.array(re.findall(r"[\d.]+", shown), float), [1, 0.6, 0.6, 1])


async def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = bascule.Device.load

    async def small(self: bascule.Device, model: str, **options: Any) -> Any:
        return await real(self, SMALL[model], **options)

    pooled: Any = resource_pool.load_model

    async def small_in_pool(model: str, *given: Any, **options: Any) -> Any:
        return await pooled(SMALL[model], *given, **options)

    monkeypatch.setattr(bascule.Device, "load", small)
    monkeypatch.setattr(resource_pool, "load_model", small_in_pool)
    names: dict[str, Any] = {}
    for code in examples("docs/devices.md"):
        await run(code, names)
    assert names["hidden"].shape == (100, 32)
    assert names["found"].shape == (4, 100, 100)
    assert names["nearest"].scores.shape == (1, 2)


async def test_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in examples("docs/arrays.md"):
        await run(code, names)
    shown = capsys.readouterr().out
    assert "[144 200]" in shown
    assert "float32" in shown
    assert names["near"].shape == (5,)
