"""Wrong kernels for tests that must see them found."""

from __future__ import annotations

from typing import Any

import pytest

from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu

# The last column's sum leaves its last product out, as a loop that misses a tile's edge does.
EDGE = (
    "k < params.inner; k++",
    "k < params.inner - select(0u, 1u, col + 1u == params.cols); k++",
)


def planted(monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str) -> None:
    """Every native device compiles that file with `old` replaced, and proves no kernel."""
    plain = NativeGpu.pipeline

    async def pipeline(self: Any, wgsl: str, constants: Any, bindings: str, label: str) -> int:
        if label == file:
            assert old in wgsl
            wgsl = wgsl.replace(old, new)
        return await plain(self, wgsl, constants, bindings, label)

    monkeypatch.setattr(NativeGpu, "pipeline", pipeline)
    monkeypatch.setattr(WebGpuBackend, "prove_kernels", lambda self: None)  # type: ignore[misc]
