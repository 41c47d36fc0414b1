"""Linking, and every kernel on both compilers: naga (wgpu) and Tint (Dawn)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.link import link
from bascule.base import assets
from bascule.errors import ShaderError
from tests.shaders.catalogue import array_files, every_kernel, served_by_none
from tests.shaders.harness import check_op, normal, sum_tolerance

SHADERS = assets.path("shaders")


async def test_every_kernel_compiles_on_naga(gpu: NativeGpu) -> None:
    kernels = list(every_kernel(gpu.adapter))
    assert len(kernels) > 50
    for kernel in kernels:
        await gpu.pipeline(kernel.wgsl, kernel.constants, kernel.bindings, kernel.label)
    for name, parts in served_by_none():
        linked = link(name, parts, (), "")
        await gpu.pipeline(linked.wgsl, {"WORKGROUP": 64}, linked.bindings, name)


async def test_every_kernel_compiles_on_tint(tint_alone: NativeGpu) -> None:
    """Each with the constants of each of its sizes."""
    assert "subgroups" in tint_alone.adapter.features
    kernels = list(every_kernel(tint_alone.adapter))
    assert len(kernels) > 300
    for kernel in kernels:
        await tint_alone.pipeline(kernel.wgsl, kernel.constants, kernel.bindings, kernel.label)
    for name, parts in served_by_none():
        linked = link(name, parts, (), "")
        await tint_alone.pipeline(linked.wgsl, {"WORKGROUP": 64}, linked.bindings, name)


async def test_every_part_compiles_on_tint_and_swiftshader(tint: NativeGpu) -> None:
    """Each kernel and each part at least once, as a Chromium without a GPU compiles them.

    SwiftShader takes 0.3 s for a pipeline, so not all combinations: Tint alone has them above.
    """
    assert "subgroups" in tint.adapter.features
    compiled: set[str] = set()
    for kernel in every_kernel(tint.adapter):
        name, parts = kernel.key[0], kernel.key[1]
        assert isinstance(parts, tuple)
        files = {f"{name}.wgsl", *map(str, parts)}
        if not files <= compiled:
            compiled |= files
            await tint.pipeline(kernel.wgsl, kernel.constants, kernel.bindings, kernel.label)
    assert len(compiled) > 100
    for name, parts in served_by_none():
        linked = link(name, parts, (), "")
        await tint.pipeline(linked.wgsl, {"WORKGROUP": 64}, linked.bindings, name)


async def test_kernels_with_halves_compile_on_tint(tint_f16: NativeGpu) -> None:
    kernels = [k for k in every_kernel(tint_f16.adapter) if "enable f16;" in k.wgsl]
    assert kernels
    for kernel in kernels:
        await tint_f16.pipeline(kernel.wgsl, kernel.constants, kernel.bindings, kernel.label)
        assert kernel.wgsl.split("\n")[0].startswith(f"enable f16; // {kernel.name}: ")
    broken = kernels[0].wgsl.replace("vec4<f16>(w.q0", "vec4<f16>(w.q0 * 1i")
    with pytest.raises(ShaderError):
        await tint_f16.pipeline(broken, kernels[0].constants, kernels[0].bindings, "broken")


async def test_kernels_fit_the_workgroup_memory_of_every_device(tint_limited: NativeGpu) -> None:
    for kernel in every_kernel(tint_limited.adapter):
        await tint_limited.pipeline(kernel.wgsl, kernel.constants, kernel.bindings, kernel.label)
    for words, fits in ((16 << 8, True), ((16 << 8) + 4, False)):
        wgsl = f"var<workgroup> a: array<u32, {words}>;\n"
        wgsl += "@compute @workgroup_size(1) fn main() { a[0] = 1u; }"
        with nullcontext() if fits else pytest.raises(ShaderError, match="16384"):
            await tint_limited.pipeline(wgsl, {}, "", "planted")


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_tint_computes_the_same(tint: NativeGpu, rng, kind: str) -> None:
    x, weight, bias = normal(rng, 17, 36), normal(rng, 33, 36), normal(rng, 33)
    inputs = [x, weight, bias]
    tolerance = 2 * sum_tolerance(36)
    await check_op(tint, kind, "linear", inputs, tolerance=tolerance, activation="gelu")
    rows = [normal(rng, 9, 70), normal(rng, 70), normal(rng, 70)]
    await check_op(tint, kind, "layer_norm", rows, tolerance=1e-5, eps=1e-6)


async def test_a_planted_error_names_its_file_and_line(gpu: NativeGpu, tint: NativeGpu) -> None:
    for device in (gpu, tint):
        for kernel in every_kernel(device.adapter):
            lines = kernel.wgsl.split("\n")
            at = next(i for i, line in enumerate(lines) if line.startswith("fn main"))
            body = next(i for i in range(at, len(lines)) if lines[i].rstrip().endswith("{"))
            lines[body] += " let planted: u32 = 1.5;"
            with pytest.raises(ShaderError) as caught:
                await device.pipeline(
                    "\n".join(lines), kernel.constants, kernel.bindings, kernel.label
                )
            assert caught.value.label == kernel.label
            assert caught.value.line == body + 1
            assert (SHADERS / kernel.label).read_text().split("\n")[body] in lines[body]


def test_text_is_linked_verbatim() -> None:
    linked = link("layer_norm", ("residual_add", "reduce_shared"), (("N", 3),), "f16 subgroups")
    kernel = assets.text("shaders/layer_norm.wgsl")
    assert linked.wgsl.startswith("enable f16; enable subgroups; " + kernel)
    assert assets.text("shaders/parts/residual_add.wgsl") in linked.wgsl
    assert linked.wgsl.endswith("const N = 3u;\n")
    assert linked.bindings == "urrrrw"
    assert linked.params == (("rows", "u32"), ("cols", "u32"), ("eps", "f32"))
    assert linked.pack({"rows": 1, "cols": 2, "eps": 0.5, "more": 9}).hex() == (
        "0100000002000000" + "0000003f" + "00000000"
    )
    nothing = ("bias_none", "activation_none", "residual_none")
    assert link("linear_any", nothing, (), "").bindings == "urr--w"


def test_every_file_is_used_short_and_described(gpu_adapter_files: set[str]) -> None:
    slots = (SHADERS / "README.md").read_text()
    for path in SHADERS.rglob("*.wgsl"):
        text = path.read_text()
        assert path.relative_to(SHADERS).as_posix() in gpu_adapter_files, f"{path.name} is dead"
        assert len(text.split("\n")) <= 125
        assert max(len(line) for line in text.split("\n")) <= 100
        assert text.startswith(f"// {path.stem}: ")
        if path.parent.name == "parts":
            assert f"`{path.stem}`" in slots
        else:
            header = text.partition("\noverride")[0]
            assert all(f"{word}: " in header for word in ("Slots", "Launch")), path.name


@pytest.fixture
async def gpu_adapter_files(gpu: NativeGpu) -> set[str]:
    """Every shader file that something is linked from."""
    used = array_files()
    served = ((str(kernel.key[0]), kernel.key[1]) for kernel in every_kernel(gpu.adapter))
    for name, parts in (*served, *served_by_none()):
        assert isinstance(parts, tuple)
        used |= {f"{name}.wgsl", *(f"parts/{part}.wgsl" for part in parts)}
    # Appended to users' kernels; see tests/kernels.
    users = {"index", "pixels", "reduce", "top_scores"}
    return used | {f"user/{name}.wgsl" for name in users}


def test_asset_names_are_checked() -> None:
    for name in ("../pyproject.toml", "shaders/../../x", "/etc/passwd", "py/x"):
        with pytest.raises(ValueError, match="asset"):
            assets.path(name)
    assert isinstance(SHADERS, Path)
