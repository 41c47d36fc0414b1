"""Choosing a tier: by a dispatch that computes, with reasons a person can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

import bascule
from bascule.backend.base import Tier
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.probe import probe_dispatch
from bascule.backend.webgpu import link
from bascule.base import assets
from bascule.choosing.auto import ModelNeed, decision_for, need_of, open_chosen, open_tier
from bascule.choosing.speeds import Speeds
from bascule.choosing.survey import Survey, TierFacts
from bascule.device.loading import read_programs
from bascule.errors import InputError, TierUnavailableError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny
from tests.tiers.machines import CPU, GPU, SOFTWARE_GPU, planted

# As SwiftShader and the WASM kernels are to each other in a page.
SLOW_GPU = planted("webgpu", overhead_s=1e-3, per_work_s=5e-10, software=True)
FAST_WASM = planted("wasm", per_work_s=8e-11)

# On this system no driver speaks D3D12: wgpu then finds no adapter, as on a machine without a GPU.
NO_ADAPTER = {**os.environ, "WGPU_BACKEND_TYPE": "D3D12"}


def without_adapter(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bascule", *arguments]
    return subprocess.run(command, env=NO_ADAPTER, capture_output=True, text=True, check=False)


async def test_auto_takes_what_is_predicted_to_be_fastest_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))  # whatever else it is doing
    opened = await open_tier("auto")
    assert opened.decision is not None
    able = [c for c in opened.decision.considered if not c.refused]
    assert {c.tier for c in able} == {"webgpu", "wasm", "cpu"}
    assert opened.backend.tier == min(able, key=lambda c: c.expected_s).tier
    assert f"auto took {opened.backend.tier}: " in opened.reason
    assert "predicted against" in opened.reason
    assert "software" in opened.reason  # lavapipe, and the user hears of it
    await probe_dispatch(opened.backend)
    opened.backend.close()


class Held(ReferenceBackend):
    """A backend that a survey holds open."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.closed = False

    def close(self) -> None:
        self.closed = True


def held(*tiers: TierFacts) -> Survey:
    return Survey(tiers, {t.tier: Held(t.tier) for t in tiers if not t.refused})


ENCODER = ModelNeed("an encoder", "product", 1e8, 90 << 20)


@pytest.mark.parametrize(
    ("machine", "tier", "words"),
    [
        (held(GPU, CPU), "webgpu", "against"),
        (held(*SOFTWARE_GPU.tiers), "cpu", "a software adapter"),
        (held(SLOW_GPU, FAST_WASM, CPU), "wasm", "a software adapter"),
        (held(replace(GPU, largest_nbytes=1 << 10), CPU), "webgpu", "against"),  # it is cut
        (held(replace(GPU, total_nbytes=80 << 20), CPU), "cpu", "room for 80.0 MiB"),
        (held(TierFacts("webgpu", "no adapter was found"), CPU), "cpu", "no adapter was found"),
        (held(replace(GPU, speeds=Speeds({})), CPU), "cpu", "the only tier that was measured"),
    ],
)
async def test_the_right_tier_and_its_reason(machine: Survey, tier: Tier, words: str) -> None:
    opened, after = await open_chosen(machine, ENCODER)
    assert after == machine
    assert opened.backend is machine.backends[tier]
    assert words in opened.reason


async def test_a_model_that_fits_nowhere_is_an_error_with_every_reason() -> None:
    machine = held(replace(GPU, total_nbytes=1), replace(CPU, total_nbytes=1))
    with pytest.raises(TierUnavailableError, match=r"webgpu refused.*cpu refused.*quantize"):
        await open_chosen(machine, ENCODER)


@pytest.mark.parametrize(
    ("name", "value", "tier"),
    [("BASCULE_FORCE_WEBGPU", "1", "webgpu"), ("BASCULE_FORCE_NUMPY", "1", "cpu")],
)
async def test_a_forced_tier_is_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, tier: Tier
) -> None:
    monkeypatch.setenv(name, value)
    await _loads_right(lambda found: found == tier, name)


@pytest.mark.parametrize(
    ("name", "value", "tier"),
    [
        ("BASCULE_DISABLE_CPU", "1", "cpu"),
        ("BASCULE_DISABLE_JAX", "1", "webgpu"),
        ("BASCULE_PLATFORM_NAME", "cpu", "webgpu"),
    ],
)
async def test_a_disabled_tier_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, tier: Tier
) -> None:
    monkeypatch.setenv(name, value)
    await _loads_right(lambda found: found != tier, name)


async def _loads_right(right: Callable[[Tier], bool], switch: str) -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT) as model:
        assert right(model.tier)
        assert switch in model.tier_reason
        result = await model.embed(expected.texts)
        assert (cosines(result, expected.embeddings) >= 0.99999).all()


async def test_memory_that_is_too_small_for_a_model_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BASCULE_MEMORY_MB", "0.01")
    with pytest.raises(TierUnavailableError, match=r"room for 0\.0 MiB"):
        await bascule.load(TINY_BERT)
    async with await bascule.load(TINY_BERT, tier="cpu") as model:  # by name: at one's own risk
        assert model.tier == "cpu"


async def test_what_a_model_needs_is_read_off_its_programs() -> None:
    encoder = need_of("encoder", await read_programs(TINY_BERT))
    assert encoder.kind == "product"
    assert encoder.total_nbytes > (TINY_BERT / "model.safetensors").stat().st_size
    language = need_of("language", await read_programs(tiny("tiny-q4_1").path))
    assert language.kind == "blocks"
    # One token: each weight of a matrix counts once.
    assert 0 < language.work < 8 * language.total_nbytes


def test_without_an_adapter_auto_takes_the_cpu_and_the_answer_stays() -> None:
    expected = golden("tiny-bert")
    result = without_adapter("embed", "--json", "--model", str(TINY_BERT), *expected.texts)
    assert result.returncode == 0, result.stderr
    assert (cosines(json.loads(result.stdout), expected.embeddings) >= 0.99999).all()
    report = json.loads(without_adapter("doctor", "--json").stdout)
    webgpu = next(row for row in report["tiers"] if row["tier"] == "webgpu")
    assert not webgpu["works"]
    assert "adapter" in webgpu["reason"]
    assert report["adapters"] == []


def test_asking_for_webgpu_without_an_adapter_is_a_clear_error() -> None:
    result = without_adapter("embed", "--tier", "webgpu", "--model", str(TINY_BERT), "w4")
    assert result.returncode == 1
    assert "webgpu" in result.stderr
    assert "mesa-vulkan-drivers" in result.stderr


async def test_a_device_that_computes_wrongly_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = assets.text
    monkeypatch.setattr(
        assets, "text", lambda name: real(name).replace("x[index] + y[", "x[index] - y[")
    )
    link.link.cache_clear()
    try:
        opened = await open_tier("auto")
        assert opened.backend.tier != "webgpu"
        assert "wrong sums" in opened.reason
        with pytest.raises(TierUnavailableError, match="wrong sums"):
            await open_tier("webgpu")
    finally:
        link.link.cache_clear()


async def test_unknown_and_absent_tiers() -> None:
    with pytest.raises(InputError, match="quantum"):
        await open_tier("quantum")
    with pytest.raises(TierUnavailableError, match="auto"):
        await open_tier("webnn")


async def test_webnn_without_its_runtime_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "webnn", None)
    with pytest.raises(TierUnavailableError, match=r"needs the package pywebnn .*tier=\"auto\""):
        await open_tier("webnn")
    result = await bascule.capabilities()
    assert result.webnn == frozenset()
    assert "pywebnn" in result.problems["webnn"]


async def test_a_model_that_keeps_states_is_not_for_webnn() -> None:
    """However fast: an MLGraph keeps nothing between its runs."""
    graph = Graph("step")
    logits = graph.input("logits", (1, 5))
    tokens, position = graph.state("tokens", (8,), "u32"), graph.state("position", (1,), "u32")
    graph.output(graph.call("argmax_token", logits, tokens, position))
    tiers = [planted("webnn", per_work_s=1e-12), CPU]
    decision = decision_for(tiers, need_of("chat", [freeze(graph)]))
    assert decision.chosen == "cpu"
    assert "argmax_token" in decision.considered[0].refused
    for asked in ("webnn", ["webnn"]):  # before anything is opened
        with pytest.raises(TierUnavailableError, match=r"cannot run chat: .*argmax_token"):
            await open_tier(asked, need_of("chat", [freeze(graph)]))
    graph = Graph("encoder")
    graph.output(graph.call("activate", graph.input("x", (4,)), kind="gelu"))
    assert decision_for(tiers, need_of("encoder", [freeze(graph)])).chosen == "webnn"


async def test_wasm_without_its_runtime_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    with pytest.raises(TierUnavailableError, match="needs the package wasmtime"):
        await open_tier("wasm")


SCARCE = """
import asyncio, json, resource, bascule
from bascule.errors import TierUnavailableError
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    asyncio.run(bascule.open_device("wasm"))
except TierUnavailableError as error:
    print(json.dumps([error.tier, error.reason, error.hint]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS needs Linux")
def test_wasm_without_address_space_says_so() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    tier, reason, hint = json.loads(result.stdout)
    assert tier == "wasm"
    assert "cannot load its kernels" in reason
    assert "ulimit -v" in hint


async def test_of_several_names_the_first_that_works_is_taken() -> None:
    opened = await open_tier(["webnn", "cpu", "webgpu"])
    assert opened.backend.tier == "cpu"
    assert opened.reason.startswith("cpu was asked for; webnn refused (")
    with pytest.raises(TierUnavailableError, match=r"webnn refused \("):
        await open_tier(["webnn"])
    with pytest.raises(InputError, match="the name of a tier"):
        await open_tier([])
    with pytest.raises(InputError, match="quantum"):
        await open_tier(["quantum", "cpu"])


def test_the_front_door_falls_where_it_may() -> None:
    expected = golden("tiny-bert")
    code = (
        "import json, sys, bascule\n"
        "platform = bascule.UnifiedWebPlatform(sys.argv[1], platform='webgpu', "
        "fallback_to_wasm=sys.argv[2] == 'yes', fallback_to_webnn=True)\n"
        "found = platform.run_inference({'input_text': json.loads(sys.argv[3])})\n"
        "print(json.dumps([found['tier'], found['tier_reason'], found['embeddings'].tolist()]))"
    )

    def run(may: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(TINY_BERT), may, json.dumps(expected.texts)]
        return subprocess.run(command, env=NO_ADAPTER, capture_output=True, text=True, check=False)

    tier, reason, embeddings = json.loads(run("yes").stdout)
    assert tier == "wasm"
    assert "webgpu refused" in reason
    assert "webnn refused" in reason
    assert (cosines(embeddings, expected.embeddings) >= 0.99999).all()
    refused = run("no")
    assert refused.returncode != 0
    assert "TierUnavailableError" in refused.stderr
    assert "webgpu or webnn" in refused.stderr


def test_features_by_name() -> None:
    platform = bascule.UnifiedWebPlatform(str(TINY_BERT))
    assert platform.test_feature_support("compute_shaders") is True
    assert platform.test_feature_support("jspi") is False  # no page
    with pytest.raises(InputError, match=r"compute_shaders.*teleport"):
        platform.test_feature_support("teleport")
