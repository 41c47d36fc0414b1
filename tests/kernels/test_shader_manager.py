"""Seed 001's ComputeShaderManager and seed 003's gemm: right numbers, levels that differ."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError, ShaderError

MINE = """\
override WORKGROUP: u32 = 64u;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(WORKGROUP) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&y)) { y[id.x] = 2.0 * x[id.x]; }
}
"""


@pytest.fixture
async def device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_the_seeds_own_lines(rng: np.random.Generator) -> None:
    shader_manager = bascule.ComputeShaderManager(model_type="vision", optimization_level=2)
    matrix_mul_shader = shader_manager.get_shader("matrix_multiplication")
    a, b, y = floats(rng, 17, 33), floats(rng, 33, 9), np.zeros((17, 9), np.float32)
    shader_manager.execute_shader(matrix_mul_shader, [a, b], [y])
    np.testing.assert_allclose(y, a @ b, rtol=1e-4, atol=1e-4)
    assert matrix_mul_shader.variants
    shader_manager.close()


async def test_each_level_runs_other_shaders(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    x, weight, bias = floats(rng, 64, 64), floats(rng, 64, 64), floats(rng, 64)
    gain, shift = floats(rng, 64), floats(rng, 64)
    cases: dict[str, list[Any]] = {
        "linear_gelu": [x, weight, bias],
        "layer_norm": [x, gain, shift],
    }
    variants: dict[tuple[str, int], tuple[str, ...]] = {}
    results: dict[str, list[np.ndarray]] = {name: [] for name in cases}
    for level in range(4):
        manager = bascule.ComputeShaderManager("text", level, device=device)
        for name, inputs in cases.items():
            shader = manager.get_shader(name)
            out = await device.buffer(np.zeros((64, 64), np.float32))
            await manager.execute_shader(shader, inputs, [out])
            results[name].append(await out.numpy())
            variants[name, level] = shader.variants
    for name, result in results.items():
        for each in result[1:]:
            np.testing.assert_allclose(each, result[0], rtol=1e-3, atol=1e-3, err_msg=name)
    # 0 is the shortest shader, 1 the default one, 2 is fused or of subgroups, 3 is measured.
    assert variants["linear_gelu", 0] != variants["linear_gelu", 1]
    assert len(variants["linear_gelu", 1]) == 2
    assert len(variants["linear_gelu", 2]) == 1
    if "subgroups" in device.features:
        assert "subgroup" in variants["layer_norm", 2][0]
    assert not any("subgroup" in v for level in (0, 1) for v in variants["layer_norm", level])
    tuned = device.backend.choices.tuned  # type: ignore[attr-defined]
    assert any(name.startswith("layer_norm") for name in tuned)


async def test_a_users_own_file(
    device: bascule.Device, rng: np.random.Generator, tmp_path: Path
) -> None:
    path = tmp_path / "mine.wgsl"
    path.write_text(MINE)
    x = floats(rng, 100)
    for level in (1, 3):
        manager = bascule.ComputeShaderManager(optimization_level=level, device=device)
        shader, y = manager.get_shader(path), np.zeros(100, np.float32)
        await manager.execute_shader(shader, [x], [y])
        np.testing.assert_array_equal(y, 2 * x)
        assert ("WORKGROUP" in shader.variants[0]) == (level == 3)
    path.write_text(MINE.replace("2.0", "two"))
    with pytest.raises(ShaderError, match=r"mine\.wgsl:5:"):
        await manager.execute_shader(manager.get_shader(str(path)), [x], [y])


async def test_what_the_manager_refuses(device: bascule.Device) -> None:
    manager = bascule.ComputeShaderManager(device=device)
    one = np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="Did you mean 'matmul'"):
        manager.get_shader("matmull")
    with pytest.raises(InputError, match="text, vision"):
        bascule.ComputeShaderManager("poetry")
    for level in (-1, 4, 1.5, None):
        with pytest.raises(InputError, match="optimization_level"):
            bascule.ComputeShaderManager(optimization_level=level)  # type: ignore[arg-type]
    for inputs, outputs in (
        ([one], [one]),
        ([one, one], []),
        ([one, one], [np.ones(3, np.float32)]),
        ([one, np.ones((3, 2), np.float32)], [one]),
    ):
        with pytest.raises(InputError):
            await manager.execute_shader(manager.get_shader("matmul"), inputs, outputs)
    assert "transpose" in bascule.ComputeShaderManager("vision").operations
    assert "transpose" not in manager.operations


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_gemm(tier: str, rng: np.random.Generator) -> None:
    a, b = floats(rng, 5, 7), floats(rng, 7, 3)
    manager = bascule.RecoveryManager()
    async with await bascule.open_device(tier) as device:
        result = await manager.matrix_ops(device).gemm(a, b)
        np.testing.assert_allclose(result, a @ b, rtol=1e-5, atol=1e-5)
        out = np.zeros((5, 3), np.float32)
        work = manager.execute_with_recovery(
            "gemm", lambda: manager.matrix_ops(device).gemm(a, b, out)
        )
        assert await work is out
        np.testing.assert_array_equal(out, result)
        held = await device.buffer(out)
        assert await manager.matrix_ops(device).gemm(a, b, held) is held
        with pytest.raises(InputError):
            await manager.matrix_ops(device).gemm(a, a)
        with pytest.raises(InputError, match="output"):
            await manager.matrix_ops(device).gemm(a, b, np.zeros(3, np.float32))


def test_gemm_in_plain_code(rng: np.random.Generator) -> None:
    a = floats(rng, 4, 4)
    operations = bascule.RecoveryManager().matrix_ops()
    np.testing.assert_allclose(operations.gemm(a, a), a @ a, rtol=1e-5, atol=1e-5)
    operations.close()
