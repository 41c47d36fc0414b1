"""The tier "reference" is nearer to float64 than float32 can be, and nothing takes it by itself."""

from __future__ import annotations

import numpy as np
import pytest

import bascule
from bascule.backend.float64 import Float64Backend, WideStates
from bascule.backend.tiers import COMPUTE_TIERS, HOST_TIERS, TIERS
from bascule.base.waiting import sync
from bascule.choosing.survey import survey
from bascule.choosing.switches import read_switches
from bascule.program.program import Dim, Value
from tests.goldens import golden
from tests.goldens.llama import Tiny, tiny, tiny_folder


async def error_of_embeddings(tier: str) -> float:
    expected = golden("minilm")
    async with await bascule.load("all-MiniLM-L6-v2", tier=tier) as model:
        assert model.tier == tier
        result = await model.embed(expected.texts[:12])
    assert result.dtype == np.float32
    return float(np.abs(result - expected.embeddings[:12].astype(np.float64)).max())


async def test_embeddings_are_those_of_float64_but_for_the_last_rounding() -> None:
    # Half a unit in the last place of what is below 0.5, and the golden's own rounding.
    assert await error_of_embeddings("reference") < 3.1e-8
    assert await error_of_embeddings("cpu") > 5e-8


async def error_of_logits(case: Tiny, tier: str, *, streamed: bool = False) -> float:
    async with await bascule.load(case.path, tier=tier, stream_weights=streamed) as model:
        logits = await model.logits(case.ids)
    assert logits.dtype == np.float32
    return float(np.abs(logits - case.logits.astype(np.float64)).max())


@pytest.mark.parametrize("streamed", [False, True])
async def test_logits_are_those_of_float64(streamed: bool) -> None:
    """With a KV cache, quantized weights and float weights."""
    for case in (tiny("tiny-mixed"), tiny_folder()):
        largest = float(np.abs(case.logits).max())
        assert await error_of_logits(case, "reference", streamed=streamed) < 1e-6 * largest
        assert await error_of_logits(case, "cpu") > 3e-6 * largest


async def test_operations_and_arrays_run_there() -> None:
    rng = np.random.default_rng()
    x, y = (rng.standard_normal((33, 65)).astype(np.float32) for _ in range(2))
    wide = x.astype(np.float64) @ y.T.astype(np.float64)
    async with await bascule.open_device(tier="reference") as device:
        assert device.adapter is None
        product = await (await device.ops.matmul(x, y.T.copy())).numpy()
        assert (product == wide.astype(np.float32)).all()
        a, b = device.asarray(x), device.asarray(y)
        assert (await (a + b).numpy() == x + y).all()
    assert (np.float32(x @ y.T) != wide.astype(np.float32)).any()


@pytest.mark.parametrize("dtype", ["f32", "f16", "u32"])
def test_states_are_written_and_read_in_their_own_dtype(dtype: str) -> None:
    value = Value("kv", (Dim("S", 16), 6), dtype)
    states = Float64Backend().states([value], {"S": 4})
    assert isinstance(states, WideStates)
    wide = dtype != "u32"
    assert states.arrays["kv"].dtype == (np.float64 if wide else np.uint32)
    assert states.nbytes == 4 * 6 * (8 if wide else 4)
    numbers = np.arange(12).astype({"f32": "float32", "f16": "float16", "u32": "uint32"}[dtype])
    states.write("kv", 6 * numbers.itemsize, numbers.tobytes())
    sync(states.resize({"S": 7}))
    into = bytearray(4 * 6 * numbers.itemsize)
    sync(states.read("kv", 0, into))
    result = np.frombuffer(into, numbers.dtype)
    assert result.tolist() == [0] * 6 + numbers.tolist() + [0] * 6
    assert states.arrays["kv"].shape == (7, 6)


async def test_nothing_takes_it_by_itself() -> None:
    assert "reference" not in (*TIERS, *COMPUTE_TIERS, *HOST_TIERS)
    assert not hasattr(bascule.BackendType, "REFERENCE")
    async with await bascule.open_device() as device:
        assert device.tier in TIERS
    found = await survey(read_switches(), budget_s=0.2, remember=False)
    assert [facts.tier for facts in found.tiers] == list(TIERS)
