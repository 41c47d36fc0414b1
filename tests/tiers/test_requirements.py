"""Requirements held against a record: every kind of lack in words, and a score that follows."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bascule
from bascule import (
    Capabilities,
    CapabilityMismatchError,
    CapabilityRequirements,
    compatibility_score,
    get_requirement_mismatch,
    meets_requirements,
    validate_capabilities,
    validate_operation_requirements,
)
from bascule.errors import BasculeError, InputError

GIB = 1 << 30
FULL = Capabilities(
    host="page",
    description="A GPU",
    software=False,
    features=frozenset({"shader-f16", "subgroups", "timestamp-query"}),
    limits={"maxBufferSize": 4 * GIB, "minStorageBufferOffsetAlignment": 32},
    wgsl_features=frozenset({"packed_4x8_integer_dot_product"}),
    subgroup_min_size=4,
    subgroup_max_size=32,
    dispatch=True,
    **dict.fromkeys(("jspi", "threads", "wasm_simd", "wasm_relaxed_simd"), True),
    **dict.fromkeys(("opfs", "opfs_sync", "indexeddb"), True),
    webnn=frozenset({"cpu", "gpu", "npu"}),
    memory_budget_nbytes=8 * GIB,
    storage_quota_nbytes=8 * GIB,
)
EMPTY = Capabilities(memory_budget_nbytes=0)
NOTHING = CapabilityRequirements()
EVERYTHING = CapabilityRequirements(
    neural_network_support=True,
    matrix_multiplication=True,
    convolution_support=True,
    graph_api=True,
    minimum_memory_mb=1024,
    ane_support=True,
    hardware_adapter=True,
    needs=frozenset({"dispatch", "jspi", "threads", "wasm_simd", "wasm_relaxed_simd", "opfs"})
    | {"opfs_sync", "indexeddb"},
    features=frozenset({"shader-f16", "subgroups"}),
    wgsl_features=frozenset({"packed_4x8_integer_dot_product"}),
    data_types=frozenset({"float16", "int8"}),
    limits={"maxBufferSize": GIB, "minStorageBufferOffsetAlignment": 256},
    subgroup_size=16,
    minimum_storage_mb=512,
)


def one(**required: Any) -> CapabilityRequirements:
    return CapabilityRequirements(**required)


# What is required, a machine that has all but that, the name and the words that are told.
KINDS: dict[str, tuple[CapabilityRequirements, dict[str, Any], str, str]] = {
    "networks": (
        one(neural_network_support=True),
        {"dispatch": False, "webnn": frozenset()},
        "neural_network_support",
        "no (planned)",
    ),
    "products": (
        one(matrix_multiplication=True),
        {"dispatch": None, "webnn": None, "wasm_simd": False},
        "matrix_multiplication",
        "no (planned)",
    ),
    "convolution": (
        one(convolution_support=True),
        {"dispatch": None, "webnn": None, "wasm_simd": None},
        "convolution_support",
        "no (planned)",
    ),
    "graph": (one(graph_api=True), {"webnn": frozenset()}, "graph_api", "no (no context)"),
    "graph not told": (
        one(graph_api=True),
        {"webnn": None},
        "graph_api",
        "unknown (no context)",
    ),
    "npu": (one(ane_support=True), {"webnn": frozenset({"gpu"})}, "ane_support", "no (no context)"),
    "memory": (
        one(minimum_memory_mb=1024),
        {"memory_budget_nbytes": 512 << 20},
        "minimum_memory_mb",
        "512 MiB",
    ),
    "storage": (
        one(minimum_storage_mb=1),
        {"storage_quota_nbytes": None},
        "minimum_storage_mb",
        "unknown",
    ),
    "software": (one(hardware_adapter=True), {"software": True}, "hardware_adapter", "no (A GPU)"),
    "flag": (one(needs={"threads"}), {"threads": False}, "threads", "no"),
    "flag unknown": (one(needs={"jspi"}), {"jspi": None}, "jspi", "unknown"),
    "dispatch": (one(needs={"dispatch"}), {"dispatch": False}, "dispatch", "no"),
    "feature": (
        one(features={"shader-f16"}),
        {"features": frozenset({"subgroups"})},
        "shader-f16",
        "no (planned)",
    ),
    "no adapter": (
        one(features={"shader-f16"}),
        {"features": None},
        "shader-f16",
        "unknown (planned)",
    ),
    "language": (
        one(wgsl_features={"subgroup_id"}),
        {},
        "subgroup_id",
        "no (planned)",
    ),
    "type": (one(data_types={"float16"}), {"features": frozenset()}, "float16", "no (planned)"),
    "limit": (
        one(limits={"maxBufferSize": GIB}),
        {"limits": {"maxBufferSize": GIB - 1}},
        "maxBufferSize",
        "1,073,741,823",
    ),
    "limit not told": (
        one(limits={"maxBufferSize": GIB}),
        {"limits": {}},
        "maxBufferSize",
        "unknown (planned)",
    ),
    "alignment": (
        one(limits={"minStorageBufferOffsetAlignment": 16}),
        {},
        "minStorageBufferOffsetAlignment",
        "32",
    ),
    "subgroup": (one(subgroup_size=64), {}, "subgroup_size", "4 to 32"),
    "subgroup sizes alone": (
        one(subgroup_size=16),
        {"features": frozenset()},
        "subgroup_size",
        "no subgroups",
    ),
    # A real iPhone's adapter info has no such sizes.
    "subgroup not told": (
        one(subgroup_size=32),
        {"subgroup_min_size": None, "subgroup_max_size": None},
        "subgroup_size",
        "unknown (planned)",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lack_is_told_in_words(kind: str) -> None:
    required, lacks, name, result = KINDS[kind]
    problems = {"webgpu": "planned", "webnn": "no context"}
    machine = replace(FULL, problems=problems, **lacks)
    [mismatch] = get_requirement_mismatch(machine, required)
    assert mismatch.capability == name
    assert mismatch.found == result
    assert mismatch.required
    assert mismatch.hint.endswith(".")
    assert name in str(mismatch)
    assert mismatch.hint in str(mismatch)
    assert not meets_requirements(machine, required)
    assert 0 <= compatibility_score(machine, required) < 1


@pytest.mark.parametrize(
    ("required", "machine"),
    [
        (NOTHING, EMPTY),
        (EVERYTHING, FULL),
        (one(limits={"maxBufferSize": 4 * GIB}), FULL),
        (one(limits={"minStorageBufferOffsetAlignment": 32}), FULL),
        (one(subgroup_size=4), FULL),
        (one(subgroup_size=32), FULL),
        (one(minimum_memory_mb=8192), FULL),
        (one(matrix_multiplication=True), Capabilities(host="native")),
        (one(neural_network_support=True), Capabilities(webnn=frozenset({"cpu"}))),
    ],
)
def test_what_is_there_is_enough(required: CapabilityRequirements, machine: Capabilities) -> None:
    assert get_requirement_mismatch(machine, required) == []
    assert meets_requirements(machine, required)
    assert compatibility_score(machine, required) == 1.0
    validate_capabilities(machine, required)


def test_no_two_of_the_first_flags_ask_the_same() -> None:
    """For each pair there is a machine that has one and lacks the other."""
    flags = ("neural_network_support", "matrix_multiplication", "convolution_support")
    flags += ("graph_api", "ane_support", "hardware_adapter")
    machines = [
        Capabilities(host="native"),
        Capabilities(host="page", wasm_simd=True, webnn=frozenset()),
        Capabilities(host="page", webnn=frozenset({"cpu"})),
        Capabilities(host="page", webnn=frozenset({"npu"})),
        Capabilities(host="page", features=frozenset(), software=True, dispatch=True),
        Capabilities(host="page", features=frozenset(), software=False, dispatch=False),
    ]
    answers = {
        flag: tuple(meets_requirements(each, one(**{flag: True})) for each in machines)
        for flag in flags
    }
    assert len(set(answers.values())) == len(flags), answers


def test_a_machine_that_tells_nothing_lacks_everything() -> None:
    lacks = get_requirement_mismatch(EMPTY, EVERYTHING)
    assert len(lacks) == 7 + 8 + 2 + 1 + 2 + 2 + 1 + 1
    assert compatibility_score(EMPTY, EVERYTHING) == 0.0


@pytest.mark.parametrize("gib", [0, 1, 2, 3])
def test_a_size_counts_by_its_share(gib: int) -> None:
    machine = replace(FULL, memory_budget_nbytes=gib * GIB)
    assert compatibility_score(machine, one(minimum_memory_mb=4096)) == gib / 4
    half_met = one(minimum_memory_mb=4096, needs={"jspi"})
    assert compatibility_score(machine, half_met) == (gib / 4 + 1) / 2


# A record with any of its fields taken away.
NAMES = [each.name for each in fields(Capabilities) if each.name != "memory_budget_nbytes"]
POORER = st.sets(st.sampled_from(NAMES)).map(lambda names: _without(FULL, names))


def _without(machine: Capabilities, names: set[str]) -> Capabilities:
    empty = Capabilities()
    return replace(machine, **{name: getattr(empty, name) for name in names})


@given(POORER, st.sets(st.sampled_from(NAMES)))
def test_the_score_never_rises_when_something_goes(machine: Capabilities, gone: set[str]) -> None:
    poorer = _without(machine, gone)
    before, after = (compatibility_score(m, EVERYTHING) for m in (machine, poorer))
    assert 0.0 <= after <= before <= 1.0


@given(POORER)
def test_a_score_of_one_means_that_nothing_is_missing(machine: Capabilities) -> None:
    score = compatibility_score(machine, EVERYTHING)
    assert (score == 1.0) == meets_requirements(machine, EVERYTHING)


@given(st.integers(1, 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
def test_the_score_follows_a_limit(required: int, a: int, b: int) -> None:
    few, many = sorted((a, b))
    asked = one(limits={"maxBufferSize": required})
    low, high = (
        compatibility_score(replace(FULL, limits={"maxBufferSize": n}), asked) for n in (few, many)
    )
    assert low <= high
    assert (low == 1.0) == (few >= required)


def test_validation_raises_with_every_lack() -> None:
    machine = replace(FULL, threads=False, dispatch=False)
    with pytest.raises(CapabilityMismatchError) as raised:
        validate_capabilities(machine, one(needs={"threads", "dispatch", "jspi"}))
    error = raised.value
    assert isinstance(error, BasculeError)
    assert error.category == "capability-mismatch"
    assert [m.capability for m in error.mismatches] == ["dispatch", "threads"]
    assert error.device == "A GPU"
    assert "A GPU" in error.what
    assert "threads: required yes, found no" in error.what
    assert "Cross-Origin-Opener-Policy" in error.hint
    with pytest.raises(CapabilityMismatchError, match="the left one"):
        validate_capabilities(machine, one(needs={"threads"}), "the left one")
    with pytest.raises(CapabilityMismatchError, match="This machine"):
        validate_capabilities(EMPTY, one(needs={"threads"}))


async def test_an_operation_is_validated_on_the_real_machine() -> None:
    result = await validate_operation_requirements(
        one(neural_network_support=True, matrix_multiplication=True, minimum_memory_mb=64)
    )
    assert result.dispatch is True
    assert await validate_operation_requirements(NOTHING, EMPTY) is EMPTY
    with pytest.raises(CapabilityMismatchError, match="maxBufferSize"):
        await validate_operation_requirements(one(limits={"maxBufferSize": 1 << 60}), result)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"needs": {"teleport"}}, "teleport"),
        ({"needs": {"software"}}, "software"),
        ({"needs": "threads"}, "a set of names"),
        ({"features": "shader-f16"}, "a set of names"),
        ({"data_types": 5}, "a set of names"),
        ({"minimum_memory_mb": -1}, "minimum_memory_mb"),
        ({"minimum_memory_mb": float("nan")}, "nan"),
        ({"minimum_storage_mb": 1.5}, "1.5"),
        ({"subgroup_size": True}, "subgroup_size"),
        ({"limits": {"maxBufferSize": "big"}}, "maxBufferSize"),
    ],
)
def test_requirements_that_make_no_sense_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        CapabilityRequirements(**wrong)


def test_names_may_come_in_any_collection() -> None:
    assert one(features=["a", "b", "a"]) == one(features={"a", "b"})


def test_the_public_names_are_there() -> None:
    for name in bascule.__all__:
        assert getattr(bascule, name)
