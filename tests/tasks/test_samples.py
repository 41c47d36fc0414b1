"""The stored samples of the models that are known by name: right, tight, and cheap to check."""

from __future__ import annotations

import json
from typing import Any

import pytest

import bascule
from bascule.tasks.proof import stored_samples
from bascule.tasks.registry import KNOWN
from tests.goldens import HERE, make_samples

# What a model hears is compared in test_speech.py and test_voice.py: no sample is stored for it.
HEARING = ("speech-model", "voice-activity")
WITH_TEXT = [name for name, known in KNOWN.items() if known.kind not in HEARING]


def test_every_known_model_of_texts_has_one_and_it_is_what_the_goldens_say() -> None:
    assert [*stored_samples()] == WITH_TEXT
    result = json.loads(make_samples.TARGET.read_text())["samples"]
    assert result == {
        "all-MiniLM-L6-v2": make_samples.minilm(),
        "SmolLM2-135M-Instruct": make_samples.smollm2(),
    }
    assert (HERE / "minilm.npy").is_file()


@pytest.mark.parametrize("tier", ["webgpu", "wasm"])
@pytest.mark.parametrize("name", WITH_TEXT)
async def test_known_models_pass_with_room_to_spare(name: str, tier: str) -> None:
    for visit in ("first", "second"):
        async with await bascule.load(name, tier=tier) as model:
            proof = model.proof
            tried, ms = model.stats.get("kernels_tried", 0), model.stats.get("proof_ms", 0)
            print(
                f"{name} on {tier}, {visit} load: sample off by {proof.deviation:.1e} "
                f"in {proof.ms:.1f} ms; {tried:.0f} kernels tried in {ms:.1f} ms"
            )
            assert proof.deviation is not None
            assert proof.deviation < proof.tolerance / 4
            assert not proof.steps
            assert bool(proof.remembered) == (visit == "second")


@pytest.mark.parametrize("bits", ["q8_0", "q4_0", "q4_1"])
async def test_fewer_bits_are_allowed_for(bits: Any) -> None:
    async with await bascule.load("all-MiniLM-L6-v2", tier="wasm", quantize=bits) as model:
        proof = model.proof
        print(f"{bits}: off by {proof.deviation:.2g}, and {proof.tolerance:.2g} is allowed")
        assert proof.deviation is not None
        assert proof.tolerance / 20 < proof.deviation < proof.tolerance / 1.5
