"""A Python without numpy: all that a page's first result needs works there."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bascule
from tests.goldens import cosines, golden
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, QUERY, classifier_golden
from tests.goldens.families import build

# A subclass of numpy's array cannot wait.
NEEDS_NUMPY = ("bascule.tasks.embeddings",)
GOLDENS = Path(__file__).parent / "goldens"

# Python with numpy made impossible to import.
BARE = """
import sys

class NoNumpy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

sys.meta_path.insert(0, NoNumpy())
"""
EMBED = """
import asyncio, json, bascule

async def main(folder, tier, texts):
    async with await bascule.load(folder, tier=tier) as model:
        rows = (await model.embed_rows(json.loads(texts))).rows
        try:
            await model.embed("x")
            message = ""
        except bascule.BasculeError as error:
            message = str(error)
        answer = {"tier": model.tier, "steps": model.proof.steps, "message": message,
                  "columns": model.dimension, "rows": rows.tolist()}
        print(json.dumps(answer))

asyncio.run(main(*sys.argv[1:]))
"""
RANK = """
import asyncio, json, bascule

async def main(folder, tier, query, texts):
    async with await bascule.load(folder, tier=tier) as model:
        ranking = await model.rank(query, json.loads(texts))
        (found,) = await model.classify([(query, "")])
        print(json.dumps([ranking.scores, found.probability]))

asyncio.run(main(*sys.argv[1:]))
"""
GENERATE = """
import asyncio, bascule

async def main(file, tier):
    async with await bascule.load(file, tier=tier) as model:
        print((await model.generate("Once", sampling=bascule.Sampling(temperature=0),
                                    max_new_tokens=8)).text)

asyncio.run(main(*sys.argv[1:]))
"""


def bare(program: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", BARE + program, *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_no_module_imports_numpy_before_it_is_used() -> None:
    modules = [
        module.name
        for module in pkgutil.walk_packages(bascule.__path__, "bascule.")
        if not module.name.endswith(("_browser", "__main__", *NEEDS_NUMPY))
    ]
    assert len(modules) > 150
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    bare(code)


@pytest.mark.parametrize("tier", ["wasm", "webgpu"])
def test_embeddings_are_the_goldens(tier: str) -> None:
    expected = golden("tiny-bert")
    result = json.loads(bare(EMBED, str(GOLDENS / "tiny-bert"), tier, json.dumps(expected.texts)))
    assert result["tier"] == tier
    rows = np.reshape(result["rows"], (-1, result["columns"]))
    assert (cosines(rows, expected.embeddings) >= 0.99999).all()
    assert "embed_rows()" in result["message"]
    unproven = any("no trial: numpy is not installed" in step for step in result["steps"])
    assert unproven == (tier == "webgpu")


@pytest.mark.parametrize("tier", ["wasm", "webgpu"])
def test_scores_are_the_goldens(tier: str, tmp_path: Path) -> None:
    case = CLASSIFIERS[0]
    folder = build(case, tmp_path / "m")
    scores, probability = json.loads(bare(RANK, str(folder), tier, QUERY, json.dumps(ANSWERS)))
    expected = classifier_golden(case.name)["scores"]
    assert np.abs(np.array(scores) - expected[: len(ANSWERS)]).max() < 1e-4
    assert probability == pytest.approx(expected[ANSWERS.index("")], abs=1e-4)


def test_what_needs_numpy_says_so() -> None:
    program = GENERATE.replace("temperature=0", "temperature=1")
    file = str(GOLDENS / "tiny-llama" / "tiny-q4_1.gguf")
    with pytest.raises(AssertionError, match="wasm, for sample_token, needs numpy"):
        bare(program, file, "wasm")


@pytest.mark.parametrize("tier", ["wasm", "webgpu"])
async def test_greedy_text_is_that_of_the_cpu_tier(tier: str) -> None:
    file = str(GOLDENS / "tiny-llama" / "tiny-q4_1.gguf")
    greedy = bascule.Sampling(temperature=0)
    async with await bascule.load(file, tier="cpu") as model:
        expected = (await model.generate("Once", sampling=greedy, max_new_tokens=8)).text
    assert bare(GENERATE, file, tier).rstrip("\n") == expected.rstrip("\n")
