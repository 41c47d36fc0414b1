"""Compiling: once each, together, and a failure is neither remembered nor contagious."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.errors import ShaderError
from tests.shaders.catalogue import every_kernel


async def test_pipelines_are_made_once(gpu: NativeGpu) -> None:
    pipelines, kernels = Pipelines(gpu), list(every_kernel(gpu.adapter))[:5]
    await asyncio.gather(pipelines.ensure(kernels), pipelines.ensure(kernels[:2]))
    handles = [pipelines.handle(kernel) for kernel in kernels]
    await pipelines.ensure(kernels)
    assert [pipelines.handle(kernel) for kernel in kernels] == handles
    assert len(set(handles)) == len(pipelines) == 5


async def test_a_failure_is_told_and_tried_again(gpu: NativeGpu) -> None:
    pipelines, kernels = Pipelines(gpu), list(every_kernel(gpu.adapter))[:3]
    wrong = replace(kernels[1], linked=replace(kernels[1].linked, wgsl="@compute fn main("))
    for _ in range(2):
        with pytest.raises(ShaderError):
            await pipelines.ensure([kernels[0], wrong, kernels[2]])
        await asyncio.sleep(0)
        assert len(pipelines) == 2
    await pipelines.ensure(kernels)
    assert len(pipelines) == 3


async def test_a_failure_that_has_just_ended_is_told_to_all(gpu: NativeGpu) -> None:
    pipelines, kernel = Pipelines(gpu), next(every_kernel(gpu.adapter))
    wrong = replace(kernel, linked=replace(kernel.linked, wgsl="@compute fn main("))
    task = asyncio.ensure_future(pipelines.ensure([wrong]))
    while not (pipelines._making and next(iter(pipelines._making.values())).done()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(ShaderError):
        await pipelines.ensure([wrong])
    with pytest.raises(ShaderError):
        await task
