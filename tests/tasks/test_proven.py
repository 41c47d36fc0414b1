"""A model proves its answers on its device: what is wrong is rejected, in order, with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.choosing.auto import open_tier
from bascule.device import proving
from bascule.errors import ModelFileError, TierUnavailableError, WrongResultError
from bascule.tasks.proof import Proof, Sample
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny

TINY_Q4 = tiny("tiny-q4_1")
PROMPT = TINY_Q4.chats[0].prompt_ids

Rule = Callable[[str, str, Mapping[str, float]], bool]
NORM = (r"rstd = 1\.0 /", "rstd = 1.2 /")
RMS = (r"1\.0 / sqrt\(", "1.2 / sqrt(")
# Nothing is written at all.
NOTHING = (r"(fn main\([^{]*\{)", r"\1 if (true) { return; }")


@pytest.fixture
def miscompile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The driver's compiler gets shaders wrong: `rule(label, wgsl, constants)` says which, and a
    regular expression how.
    """
    real = NativeGpu.pipeline

    def plant(rule: Rule, old: str, new: str) -> None:
        async def pipeline(
            self: NativeGpu, wgsl: str, constants: Mapping[str, float], bindings: str, label: str
        ) -> int:
            if rule(label, wgsl, constants):
                wgsl = re.sub(old, new, wgsl)
            return await real(self, wgsl, constants, bindings, label)

        monkeypatch.setattr(NativeGpu, "pipeline", pipeline)

    return plant


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sample]:
    """Samples of the tiny models, from their goldens, as the known models have theirs."""
    embedded = golden("tiny-bert")
    bert = Sample(tuple(embedded.ids[1]), tuple(embedded.embeddings[1, :16].tolist()), 1e-3)
    logits = np.load(TINY_Q4.path.with_suffix(".npz"))["logits"]
    at = next(n for n in range(6, 16) if np.ptp(np.sort(logits[n - 1])[-2:]) > 0.2)
    best = np.argsort(-logits[at - 1])[:8]
    llama = Sample(
        tuple(TINY_Q4.ids[:at]), tuple(logits[at - 1, best].tolist()), 1e-2, tuple(best.tolist())
    )
    samples = {str(TINY_BERT): bert, str(TINY_Q4.path): llama}
    monkeypatch.setattr(proving, "stored_samples", lambda: samples)
    return samples


def every_norm(label: str, *_: object) -> bool:
    return label.startswith("layer_norm")


def only_lanes_of_16(label: str, _: str, constants: Mapping[str, float]) -> bool:
    return label in ("layer_norm_lane.wgsl", "rms_norm_lane.wgsl") and constants["WORKGROUP"] == 16


async def right_embeddings(model: Any) -> None:
    expected = golden("tiny-bert")
    assert (cosines(await model.embed(expected.texts), expected.embeddings) >= 0.99999).all()


async def right_tokens(model: Any, prompt: list[int] = PROMPT) -> None:
    chat = TINY_Q4.chats[0]
    made = await model.generate(prompt, sampling=GREEDY, max_new_tokens=6)
    assert made.ids == list(chat.ids[:6])


@pytest.mark.usefixtures("stored")
async def test_a_right_model_is_proven_once() -> None:
    for tier in ("webgpu", "wasm"):
        first = await bascule.load(TINY_BERT, tier=tier)
        proof = first.proof
        assert proof.deviation is not None
        assert proof.deviation < proof.tolerance / 20
        assert (proof.steps, proof.remembered) == ((), "")
        assert (first.stats.get("kernels_tried", 0) > 0) == (tier == "webgpu")
        first.close()
        async with await bascule.load(TINY_BERT, tier=tier) as again:
            assert again.proof.deviation == proof.deviation
            assert tier in again.proof.remembered
            assert again.stats.get("kernels_tried", 0) == 0
            assert again.stats["passes"] == 0


async def test_a_wrong_variant_of_an_encoder_is_rejected(miscompile: Callable[..., None]) -> None:
    miscompile(only_lanes_of_16, *NORM)
    tried: list[float] = []
    for _ in range(2):
        async with await bascule.load(TINY_BERT, tier="webgpu") as model:
            await right_embeddings(model)
            tried.append(model.stats["kernels_tried"])
            (step,) = model.proof.steps
            assert step.startswith("layer_norm_lane 16 was rejected: its numbers are off by")
            assert step in model.tier_reason
    assert tried[0] > 0 == tried[1]


async def test_a_wrong_variant_of_a_language_model_is_rejected(
    miscompile: Callable[..., None],
) -> None:
    miscompile(only_lanes_of_16, *RMS)
    async with await bascule.load(TINY_Q4.path, tier="webgpu") as model:
        await right_tokens(model)
        assert "rms_norm_lane 16 was rejected" in model.tier_reason


async def test_a_wrong_op_costs_the_tier(miscompile: Callable[..., None]) -> None:
    miscompile(every_norm, *NORM)
    for _ in range(2):
        async with await bascule.load(TINY_BERT) as model:
            await right_embeddings(model)
            assert model.tier in ("wasm", "cpu")
            assert model.proof.steps == () or "webgpu was rejected" in model.proof.steps[0]


@pytest.mark.parametrize("wait", [True, False], ids=["waits", "at once"])
async def test_a_tier_is_rejected_for_the_next_one(
    miscompile: Callable[..., None], monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    monkeypatch.setattr("bascule.device.loading.open_tier", webgpu_first)
    miscompile(every_norm, *NORM)
    tried: list[float] = []
    for _ in range(2):
        async with await bascule.load(TINY_BERT, wait=wait) as model:
            await right_embeddings(model)
            await model.loaded()
            assert model.tier in ("wasm", "cpu")
            (step,) = model.proof.steps
            assert step.startswith("webgpu was rejected: layer_norm ")
            assert "webgpu refused (layer_norm" in model.tier_reason
            tried.append(model.stats.get("kernels_tried", 0))
    with pytest.raises(WrongResultError, match=r"layer_norm.*off by"):
        await bascule.load(TINY_BERT, tier="webgpu")


async def test_everything_wrong_on_the_gpu_costs_a_language_model_the_tier(
    miscompile: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.device.loading.open_tier", webgpu_first)
    miscompile(lambda label, *_: label != "add.wgsl", *NOTHING)  # which opening a tier tries
    async with await bascule.load(TINY_Q4.path) as model:
        await right_tokens(model)
        assert model.tier in ("wasm", "cpu")
        assert "webgpu was rejected: " in model.proof.steps[0]


async def test_a_float16_cache_is_replaced_before_the_tier(miscompile: Callable[..., None]) -> None:
    def of_f16_cache(label: str, wgsl: str, _: object) -> bool:
        return label.startswith("cached_attention") and "unpack2x16float" in wgsl

    miscompile(of_f16_cache, r"exp\(", "exp(0.5 * ")
    for _ in range(2):
        async with await bascule.load(TINY_Q4.path, tier="webgpu") as model:
            await right_tokens(model)
            (step,) = [s for s in model.proof.steps if "float16" in s]
            assert step in model.tier_reason
            assert model.tier == "webgpu"
            assert {v.dtype for v in model._cache.states._values if "cache" in v.name} == {"f32"}


async def test_without_proof_the_wrong_kernel_serves(
    miscompile: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    miscompile(only_lanes_of_16, *NORM)
    async with await bascule.load(TINY_BERT, tier="webgpu", prove=False) as model:
        with pytest.raises(AssertionError):
            await right_embeddings(model)
        assert model.proof == Proof()
    monkeypatch.setenv("BASCULE_PROVE", "0")
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert model.stats["kernels_tried"] == 0
    async with await bascule.load(TINY_BERT, tier="webgpu", prove=True) as model:
        await right_embeddings(model)


async def webgpu_first(wanted: str, need: Any) -> Any:
    """Lavapipe is slow: where a GPU is real, "auto" takes it first."""
    return await open_tier("webgpu" if wanted == "auto" else wanted, need)


async def test_a_kernel_that_is_wrong_at_full_size_only(
    miscompile: Callable[..., None], stored: dict[str, Sample]
) -> None:
    del stored
    few = (NORM[0], "rstd = select(1.0, 1.2, params.rows < 30u) /")  # a trial has more rows
    miscompile(only_lanes_of_16, *few)
    for remembered in (False, True):
        async with await bascule.load(TINY_BERT, tier="webgpu") as model:
            await right_embeddings(model)
            (step,) = model.proof.steps
            assert step.startswith("layer_norm_lane 16 was rejected")
            assert bool(model.proof.remembered) == remembered


@pytest.mark.parametrize("model", ["encoder", "language"])
async def test_weights_that_are_not_the_stored_ones_are_told(
    stored: dict[str, Sample], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr("bascule.device.loading.open_tier", webgpu_first)
    path = TINY_BERT if model == "encoder" else TINY_Q4.path
    sample = stored[str(path)]
    stored[str(path)] = replace(sample, numbers=tuple(n + 0.5 for n in sample.numbers))
    with pytest.raises(ModelFileError, match=r"weights are not.*webgpu, .*cpu.*not at fault"):
        await bascule.load(path)
    with pytest.raises(WrongResultError, match="stored sample is off by"):
        await bascule.load(path, tier="webgpu")


@pytest.mark.parametrize("answer", [np.nan, 7.0], ids=["nan", "wrong"])
async def test_an_answer_that_is_wrong_as_a_whole_costs_the_tier(
    stored: dict[str, Sample], monkeypatch: pytest.MonkeyPatch, answer: float
) -> None:
    from bascule.tasks.embedder import EmbeddingModel

    monkeypatch.setattr("bascule.device.loading.open_tier", webgpu_first)
    real = EmbeddingModel._answer  # pyright: ignore[reportPrivateUsage]

    async def answered(self: EmbeddingModel, sample: Sample) -> Any:
        result = await real(self, sample)
        return np.full_like(result, answer) if self.tier == "webgpu" else result

    monkeypatch.setattr(EmbeddingModel, "_answer", answered)
    del stored
    async with await bascule.load(TINY_BERT) as model:
        await right_embeddings(model)
        assert model.tier in ("wasm", "cpu")
        (step,) = model.proof.steps
        assert "stored sample is off by" in step
        assert model.proof.deviation is not None


async def test_no_tier_left_is_a_clear_error(
    miscompile: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.device.loading.open_tier", webgpu_first)
    monkeypatch.setenv("BASCULE_DISABLE_WASM", "1")
    monkeypatch.setenv("BASCULE_DISABLE_CPU", "1")
    miscompile(every_norm, *NORM)
    with pytest.raises((WrongResultError, TierUnavailableError), match="layer_norm"):
        await bascule.load(TINY_BERT)


async def test_another_machine_proves_again(
    stored: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    del stored
    (await bascule.load(TINY_BERT, tier="wasm")).close()
    monkeypatch.setattr("bascule.machine.host.host_identity", lambda: "another machine")
    async with await bascule.load(TINY_BERT, tier="wasm") as model:
        assert model.proof.remembered == ""
        assert model.stats["passes"] == 1
