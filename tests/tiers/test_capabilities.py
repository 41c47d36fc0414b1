"""The record of what this machine can do: probed for real, and whole however much is missing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import wgpu

import bascule
from bascule.backend.webgpu import link
from bascule.backend.webgpu.gpu_native import NativeGpu, adapter_facts
from bascule.base import assets
from bascule.machine import capabilities as room
from bascule.machine import host
from bascule.machine.capabilities import (
    Capabilities,
    capabilities,
    from_facts,
)
from bascule.machine.facts import memory_budget
from bascule.machine.host import tab_nbytes

GIB = 1 << 30
# On this system no driver speaks D3D12: wgpu then finds no adapter, as on a machine without a GPU.
NO_ADAPTER = {**os.environ, "WGPU_BACKEND_TYPE": "D3D12"}
PRINT = """
import asyncio, json, bascule
print(json.dumps(asyncio.run(bascule.capabilities()).as_json()))
"""
GARBAGE: tuple[Any, ...] = (
    *(None, "", "x" * 9999, b"bytes", True, -1, 1.5, float("nan"), float("inf"), 10**400),
    *([1, None], [], {"a": object()}, {1: 2}, {"n": -1}, {"n": True}, object()),
)


def in_python(code: str, environment: dict[str, str] | None = None) -> Any:
    """What a fresh Python prints as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(result.stdout)


async def test_without_wasmtime_there_is_no_simd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    result = await bascule.capabilities(dispatch=False)
    assert (result.wasm_simd, result.wasm_relaxed_simd) == (False, False)
    assert result.problems["wasm"] == "outside a page it needs the package wasmtime"


async def test_this_machine_is_what_wgpu_says_and_computes() -> None:
    result = await bascule.capabilities()
    adapter: Any = await wgpu.gpu.request_adapter_async(power_preference="high-performance")
    assert result.dispatch is True
    assert result.webnn is not None
    assert set(result.problems) == (set() if result.webnn else {"webnn"})
    assert result.host == "native"
    assert (result.wasm_simd, result.wasm_relaxed_simd) == (True, True)  # wasmtime's
    assert (result.vendor or "", result.device) == (adapter.info["vendor"], adapter.info["device"])
    assert result.driver == adapter.info["description"]
    assert result.backend == adapter.info["backend_type"]
    assert result.software == (adapter.info["adapter_type"] == "CPU")
    assert result.features is not None
    assert result.limits is not None
    assert ("subgroups" in result.features) == ("subgroup" in adapter.features)
    assert len(result.features) == len(adapter.features)
    limits = adapter.limits
    assert result.limits["maxBufferSize"] == limits["max-buffer-size"]
    assert result.limits["maxTextureDimension1D"] == limits["max-texture-dimension-1d"]
    assert len(result.limits) == len(limits)
    assert result.subgroup_min_size is not None
    assert result.subgroup_max_size is not None
    assert 1 <= result.subgroup_min_size <= result.subgroup_max_size
    assert result.threads
    assert 1 <= (result.n_cores or 0) <= (os.cpu_count() or 0)
    assert result.versions["wgpu"] == wgpu.__version__
    assert 0 < result.memory_budget_nbytes < (result.device_memory_nbytes or 0)


async def test_limits_are_named_as_the_drivers_name_them(gpu: NativeGpu) -> None:
    result = await capabilities(dispatch=False)
    assert result.dispatch is None
    assert result.limits is not None
    assert result.features is not None
    assert set(gpu.adapter.limits) <= set(result.limits)
    assert gpu.adapter.features <= result.features
    assert all(gpu.adapter.limits[name] <= result.limits[name] for name in gpu.adapter.limits)


async def test_a_record_survives_json() -> None:
    result = await capabilities()
    assert from_facts(json.loads(json.dumps(result.as_json()))) == result
    assert from_facts(json.loads(json.dumps(Capabilities().as_json()))) == Capabilities()


def test_without_an_adapter_the_reason_is_told() -> None:
    result = from_facts(in_python(PRINT, NO_ADAPTER))
    assert not result.has_adapter
    assert result.dispatch is None
    assert result.adapter_name == "none"
    assert "adapter" in result.problems["webgpu"]
    assert result.threads
    assert result.memory_budget_nbytes > 0


def test_a_missing_driver_package_is_named() -> None:
    result = from_facts(in_python(f"import sys; sys.modules['wgpu'] = None\n{PRINT}"))
    assert result.dispatch is None
    assert "cannot be imported" in result.problems["webgpu"]


def test_a_dispatch_needs_no_numpy() -> None:
    result = from_facts(in_python(f"import sys; sys.modules['numpy'] = None\n{PRINT}"))
    assert result.dispatch is True


def test_the_record_needs_neither_numpy_nor_wgpu() -> None:
    code = """
import json, sys
import bascule.machine.capabilities, bascule.machine.requirements, bascule.machine.safari
print(json.dumps([name for name in ("numpy", "wgpu", "rich") if name in sys.modules]))
"""
    assert in_python(code) == []


async def test_a_device_that_computes_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = assets.text
    monkeypatch.setattr(
        assets, "text", lambda name: real(name).replace("x[index] + y[", "x[index] - y[")
    )
    link.link.cache_clear()
    try:
        result = await capabilities()
    finally:
        link.link.cache_clear()
    assert result.dispatch is False
    assert "wrong sums" in result.problems["dispatch"]
    assert result.has_adapter


async def _hang(**_: Any) -> NativeGpu:
    await asyncio.Event().wait()
    raise AssertionError


async def _crash(**_: Any) -> NativeGpu:
    raise ZeroDivisionError("planned by the test")


@pytest.mark.parametrize(("broken", "told"), [(_hang, "no answer"), (_crash, "planned by")])
async def test_a_driver_that_hangs_or_crashes_is_told(
    monkeypatch: pytest.MonkeyPatch, broken: Any, told: str
) -> None:
    monkeypatch.setattr("bascule.backend.webgpu.gpu_native.open_native", broken)
    monkeypatch.setattr(room, "_DISPATCH_LIMIT_S", 0.2)
    result = await capabilities()
    assert result.dispatch is False
    assert told in result.problems["dispatch"]


@pytest.mark.parametrize("name", [each.name for each in fields(Capabilities)])
def test_any_field_may_be_missing_or_garbage(name: str) -> None:
    whole = {
        **{"host": "page", "vendor": "v", "features": ["shader-f16"], "limits": {"n": 1}},
        **{"subgroup_min_size": 4, "subgroup_max_size": 8, "jspi": True, "n_cores": 2},
        "device_memory_nbytes": 8 * GIB,
    }
    for garbage in GARBAGE:
        result = from_facts({**whole, name: garbage, "nobody knows this": 1})
        assert result.memory_budget_nbytes >= 0
        assert result.adapter_name
        assert isinstance(result.has_adapter, bool)
        assert result.data_types >= set()
        assert from_facts(json.loads(json.dumps(result.as_json()))) == result
        assert hash(result.identity)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jspi", 1),
        ("n_cores", True),
        ("n_cores", -1),
        ("n_cores", float("nan")),
        ("vendor", ""),
        ("features", "shader-f16"),
        ("limits", [1]),
    ],
)
def test_a_value_of_the_wrong_type_counts_as_not_told(name: str, value: object) -> None:
    assert getattr(from_facts({name: value}), name) is None


def test_odd_entries_do_not_take_the_sound_ones_along() -> None:
    facts = {"limits": {"a": 1, "b": "2", "c": 3.0, "d": None}, "features": ["x", 1, None]}
    result = from_facts(facts)
    assert result.limits == {"a": 1, "c": 3}
    assert result.features == {"x"}


def test_an_adapter_that_tells_nothing_is_an_adapter() -> None:
    result = from_facts(adapter_facts({}, [], {}))
    assert result.has_adapter
    assert result.adapter_name == "GPU"
    assert result.subgroup_min_size is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (("native", 8 * GIB, None), 6 * GIB),
        (("page", 8 * GIB, {"maxBufferSize": 64 * GIB}), 4 * GIB),
        (("page", GIB // 4, None), GIB // 8),
        (("page", None, None), GIB),
        (("page", 0, None), GIB),
        # WebKit on iOS, before and after it raised the largest buffer; a desktop's Firefox.
        (("page", None, {"maxBufferSize": 256 << 20}), GIB),
        (("page", None, {"maxBufferSize": GIB}), GIB),
        (("page", None, {"maxBufferSize": 2 * GIB}), 2 * GIB),
        (("page", None, {"maxBufferSize": 1 << 50}), 4 * GIB),
        ((None, None, {}), GIB),
    ],
)
def test_memory_has_a_budget(told: Any, expected: int) -> None:
    assert memory_budget(*told) == expected
    host, memory, limits = told
    facts = {"host": host, "device_memory_nbytes": memory, "limits": limits}
    assert from_facts(facts).memory_budget_nbytes == expected
    assert from_facts({**facts, "memory_budget_nbytes": 7}).memory_budget_nbytes == 7


def test_a_tab_may_take_the_same_guess_as_its_budget() -> None:
    assert tab_nbytes(None) == Capabilities().memory_budget_nbytes == GIB
    assert tab_nbytes(4 * GIB) == from_facts({"device_memory_nbytes": 4 * GIB}).memory_budget_nbytes
    assert tab_nbytes(64 * GIB) == 4 * GIB  # no 32-bit WebAssembly has more


def test_a_container_has_its_share_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(host, "_CGROUP_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("max\n")
    whole = host.memory_nbytes()
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("1048576\n")
    assert host.memory_nbytes() == 1 << 20
    monkeypatch.delattr(os, "sysconf")
    limit.write_text("damaged")
    assert host.memory_nbytes() is None


def test_number_types_follow_the_adapter() -> None:
    assert Capabilities().data_types == set()
    plain = Capabilities(features=frozenset())
    assert plain.data_types == {"float32", "int32", "uint32"}
    half = replace(plain, features=frozenset({"shader-f16"}))
    assert half.data_types - plain.data_types == {"float16"}
    packed = replace(plain, wgsl_features=frozenset({"packed_4x8_integer_dot_product"}))
    assert packed.data_types - plain.data_types == {"int8", "uint8"}


async def test_the_identity_changes_with_what_decisions_rest_on() -> None:
    result = await capabilities(dispatch=False)
    assert (await capabilities(dispatch=False)).identity == result.identity
    assert result.limits is not None
    others = [
        replace(result, driver="another"),
        replace(result, limits={**result.limits, "maxBufferSize": 1}),
        replace(result, features=frozenset({"x"})),
        replace(result, versions={**result.versions, "bascule": "99"}),
        replace(result, build="another browser"),
    ]
    assert len({result.identity, *(other.identity for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("environment", [dict(os.environ), NO_ADAPTER], ids=["adapter", "none"])
def test_the_doctor_tells_it_readably_and_as_json(environment: dict[str, str]) -> None:
    def doctor(*arguments: str) -> str:
        command = [sys.executable, "-m", "bascule", "doctor", *arguments]
        environment["COLUMNS"] = "200"
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        return output.stdout

    result = from_facts(json.loads(doctor("--json"))["capabilities"])
    text = doctor()
    assert "Capabilities" in text
    assert "memory_budget" in text
    assert f"{result.memory_budget_nbytes / 1e9:.1f} GB" in text
    if result.has_adapter:
        assert result.dispatch
        assert result.driver is not None
        assert result.driver in text
    else:
        assert "no: wgpu has no usable GPU" in text
