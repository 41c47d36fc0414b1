"""The WebAssembly kernels, run natively."""

from __future__ import annotations

import pytest

from bascule.backend.wasm.kernels_native import NativeKernels, open_native


@pytest.fixture(scope="module")
def kernels() -> NativeKernels:
    """The committed module. wasmtime is a development dependency: without it this fails."""
    return open_native()
