"""SmolLM2-135M-Instruct, real weights, against transformers in float64 and llama.cpp."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

import bascule
from bascule import LanguageModel
from bascule.base.folders import models_folder
from bascule.tasks.sampler import GREEDY
from tests.goldens import cosines, llama
from tests.goldens.llama_folder import write_folder

NAME = "SmolLM2-135M-Instruct"
FILE = models_folder() / NAME / "model.gguf"
# They share a model a tier, which lives in one loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")
# The WebAssembly tier is the fastest here: it answers what would take the others long, too.
on_wasm_too = pytest.mark.parametrize("smollm2", ["webgpu", "cpu", "wasm"], indirect=True)
# Above this llama.cpp's rounding of activations to 8 bits does not decide.
CLEAR = 0.3


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["webgpu", "cpu"])
async def smollm2(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LanguageModel]:
    with pytest.MonkeyPatch.context() as patch:  # as `weights_home` does for one test
        home = tmp_path_factory.mktemp("smollm2")
        patch.setenv("BASCULE_REMEMBERED", str(home / "remembered"))
        patch.setenv("BASCULE_WEIGHTS", str(home / "weights-cache"))
        model = await bascule.load(NAME, tier=request.param)
    async with model:
        assert isinstance(model, LanguageModel)
        assert model.tier == request.param
        yield model


# First: it counts the memory that a chat needs, and the others ask for more logits at once.
@on_wasm_too
async def test_greedy_text_and_memory(smollm2: LanguageModel) -> None:
    chats = llama.prompts()
    names = {"webgpu": ["short", "long"], "cpu": ["short"], "wasm": list(chats)}[smollm2.tier]
    for name in names:
        chat = chats[name]
        maximum = 32 if name in ("short", "long") else 12
        assert smollm2.chat_ids(chat.messages) == chat.prompt_ids
        result = await smollm2.chat(chat.messages, sampling=GREEDY, max_new_tokens=maximum)
        assert chat.parts_at(result.ids) is None, (name, result.text)
        if chat.end is not None and chat.end < maximum:
            assert (result.text, result.stop_reason) == (chat.text, "end")
        else:
            assert len(result.ids) == maximum
    weights = smollm2.stats["weights_nbytes"]
    assert weights <= 1.05 * FILE.stat().st_size
    if smollm2.tier == "webgpu":
        assert smollm2.stats["gpu_nbytes"] < 1.2 * weights


async def test_the_same_weights_in_safetensors_say_the_same(tmp_path: Path) -> None:
    chat = llama.prompts()["short"]
    folder = write_folder(FILE, tmp_path / "m")
    async with await bascule.load(folder, tier="cpu") as model:  # 540 MB of float32
        assert model.chat_ids(chat.messages) == chat.prompt_ids
        result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
    (folder / "model.safetensors").unlink()
    assert chat.parts_at(result.ids) is None
    assert (result.text, result.stop_reason) == (chat.text, "end")


@on_wasm_too
async def test_logits_of_200_tokens(smollm2: LanguageModel) -> None:
    text = llama.long_text()
    expected = text.logits(llama.token_embedding(FILE))
    result = await smollm2.logits(text.ids)
    assert result.shape == expected.shape == (200, 49152)
    minimum = cosines(result, expected).min()
    print(f"{smollm2.tier}: cosine at least {minimum:.7f}")
    assert minimum >= 0.9999

    top = result.argmax(axis=1)
    for kind in ("quantized", "float32"):
        theirs = llama.llama_cpp(kind).long
        clear = np.array(theirs.margins) >= CLEAR
        assert clear.sum() > 100
        assert (top[clear] == np.array(theirs.ids)[clear]).all()


# Other tiers' logits are held to the reference's above, and a page's WebGPU by perplexity, too.
@pytest.mark.parametrize("smollm2", ["wasm"], indirect=True)
async def test_perplexity_of_a_window(smollm2: LanguageModel) -> None:
    known = llama.perplexity()
    ids = np.array(known.ids[: known.window])
    logits = (await smollm2.logits(ids.tolist())).astype(np.float64)
    top = logits.max(axis=1)
    totals = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    loss = (totals[:-1] - logits[np.arange(len(ids) - 1), ids[1:]]).mean()
    print(
        f"{smollm2.tier}: perplexity {np.exp(loss):.4f}, {np.exp(known.losses[0]):.4f} in float64"
    )
    assert abs(np.exp(loss - known.losses[0]) - 1) < 0.005


async def test_an_answer_over_llama_cpp_s_own_words(smollm2: LanguageModel) -> None:
    """Teacher-forced on a chat: wherever llama.cpp is sure, the choice is the same."""
    chat, theirs = llama.prompts()["accents"], llama.llama_cpp("quantized").chats["accents"]
    ids = [*chat.prompt_ids, *chat.ids]
    logits = await smollm2.logits(ids)
    ours = logits[len(chat.prompt_ids) - 1 : -1].argmax(axis=1)
    clear = np.array(theirs.margins) >= CLEAR
    assert clear.sum() > 16
    assert (ours[clear] == np.array(theirs.ids)[clear]).all()
