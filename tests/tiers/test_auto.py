"""Choosing a tier: by a dispatch that computes, with reasons a person can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bascule import assets
from bascule.backend.webgpu import link
from bascule.errors import InputError, TierUnavailableError
from bascule.tiers.auto import open_tier
from tests.goldens import TINY_BERT, cosines, golden

# On this system no driver speaks D3D12: wgpu then finds no adapter, as on a machine without a GPU.
NO_ADAPTER = {**os.environ, "WGPU_BACKEND_TYPE": "D3D12"}


def without_adapter(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bascule", *arguments]
    return subprocess.run(command, env=NO_ADAPTER, capture_output=True, text=True, check=False)


async def test_auto_takes_webgpu_and_says_why() -> None:
    opened = await open_tier("auto")
    assert opened.backend.tier == "webgpu"
    assert "right numbers" in opened.reason
    opened.backend.close()


def test_without_an_adapter_auto_takes_the_cpu_and_the_answer_stays() -> None:
    expected = golden("tiny-bert")
    told = without_adapter("embed", "--json", "--model", str(TINY_BERT), *expected.texts)
    assert told.returncode == 0, told.stderr
    assert (cosines(json.loads(told.stdout), expected.embeddings) >= 0.99999).all()
    report = json.loads(without_adapter("doctor", "--json").stdout)
    webgpu = next(row for row in report["tiers"] if row["tier"] == "webgpu")
    assert not webgpu["works"]
    assert "adapter" in webgpu["reason"]
    assert report["adapters"] == []


def test_asking_for_webgpu_without_an_adapter_is_a_clear_error() -> None:
    told = without_adapter("embed", "--tier", "webgpu", "--model", str(TINY_BERT), "w4")
    assert told.returncode == 1
    assert "webgpu" in told.stderr
    assert "mesa-vulkan-drivers" in told.stderr


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
        assert opened.backend.tier == "cpu"
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


async def test_wasm_without_its_runtime_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    with pytest.raises(TierUnavailableError, match="needs the package wasmtime"):
        await open_tier("wasm")
