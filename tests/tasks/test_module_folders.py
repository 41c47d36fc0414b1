"""Model folders as they are in the wild: right as sentence-transformers has it, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule.errors import BasculeError
from tests.goldens import cosines
from tests.goldens.module_folders import (
    DENSE_OF_BLOCKS,
    GOLDENS,
    REFUSED,
    RIGHT,
    TEXTS,
    Case,
    build,
)

TIERS = ["webgpu", "wasm", "cpu"]
COSINE = 0.99999


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
async def test_a_folder_is_followed(case: Case, tmp_path: Path) -> None:
    build(case, tmp_path / "m")
    expected = np.load(GOLDENS)[case.name]
    for tier in TIERS:
        async with await bascule.load(tmp_path / "m", tier=tier) as model:
            result = await model.embed(TEXTS, **case.call)
            assert model.dimension == expected.shape[1]
        assert result.shape == expected.shape, tier
        assert (cosines(result, expected) >= COSINE).all(), (tier, cosines(result, expected))
        if case.modules is not None:  # without modules.json Bascule gives length 1
            np.testing.assert_allclose(result, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_a_folder_is_refused(case: Case, tmp_path: Path) -> None:
    build(case, tmp_path / "m")
    with pytest.raises(BasculeError, match=case.refused) as refusal:
        await bascule.load(tmp_path / "m", tier="cpu")
    assert refusal.value.category in ("unsupported-model", "model-file", "file-missing")


@pytest.mark.parametrize("tier", TIERS)
async def test_the_weights_of_modules_become_blocks(tier: str, tmp_path: Path) -> None:
    build(DENSE_OF_BLOCKS, tmp_path / "m")
    async with await bascule.load(tmp_path / "m", tier="cpu") as model:
        expected = await model.embed(TEXTS)
    async with await bascule.load(tmp_path / "m", tier=tier, quantize=8) as model:
        assert model.quantization is not None
        types = {tensor.name: tensor.dtype for tensor in model.quantization.tensors}
        result = await model.embed(TEXTS)
    assert types["3_Dense/linear.weight"] == "q8_0"
    assert types["2_Dense/linear.weight"] == "f32"  # rows of 35
    assert (cosines(result, expected) >= 0.999).all()
    assert (result != expected).any()


def test_there_are_as_many_folders_as_there_are_goldens() -> None:
    assert set(np.load(GOLDENS)) == {case.name for case in RIGHT}
    assert len({case.name for case in (*RIGHT, *REFUSED)}) == len(RIGHT) + len(REFUSED) >= 70
