"""Every error class is public, documented and has a category of its own."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import bascule
from bascule.compat.fallback.settings import tier_named
from bascule.errors import BasculeError, InputError, ModelNotFoundError
from tests.goldens import TINY_BERT

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\w-]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def all_errors() -> dict[str, type[BasculeError]]:
    for module in pkgutil.walk_packages(bascule.__path__, "bascule."):
        if not module.name.endswith(("_browser", "__main__")):
            importlib.import_module(module.name)
    result, queue = dict[str, type[BasculeError]](), [BasculeError]
    while queue:
        error = queue.pop()
        result[error.__name__] = error
        queue += [e for e in error.__subclasses__() if e.__module__.startswith("bascule")]
    return result


def test_every_error_is_public() -> None:
    for name, error in all_errors().items():
        home = "bascule.array.errors" if error.__module__.startswith("bascule.array") else None
        assert getattr(importlib.import_module(home or "bascule.errors"), name) is error


def test_every_error_is_documented() -> None:
    rows = {name: category for name, category, _, _ in ROW.findall(PAGE.read_text("utf-8"))}
    assert rows == {name: error.category for name, error in all_errors().items()}
    assert len(set(rows.values())) == len(rows)


async def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InputError, match="Did you mean 'webgpu'"):
        await bascule.load("all-MiniLM-L6-v2", tier="wegbpu")
    with pytest.raises(InputError, match="Did you mean 'webgpu'"):
        tier_named("web-gpu", "tier")
    with pytest.raises(ModelNotFoundError, match="Did you mean 'all-MiniLM-L6-v2'"):
        await bascule.load("all-minilm-l6-v3")
    manager = bascule.FallbackManager(config={"tier": "cpu"})
    with pytest.raises(InputError, match="Did you mean 'matmul'"):
        await manager.run_with_fallback("matmull", {})


async def test_a_model_s_repr_says_what_it_is() -> None:
    model = await bascule.load(TINY_BERT, tier="cpu")
    assert isinstance(model, bascule.EmbeddingModel)
    shown = repr(model)
    for part in (
        "EmbeddingModel",
        "tiny-bert",
        "on cpu",
        "numpy",
        f"{model.weights.nbytes:,} bytes",
    ):
        assert part in shown
    model.close()
    assert "closed" in repr(model)
