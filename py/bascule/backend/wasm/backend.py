"""The WebAssembly tier: the CPU tier with kernels of 128-bit SIMD for what takes the time."""

from __future__ import annotations

from bascule.backend.base import Tier
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.functions import WasmFunctions
from bascule.backend.wasm.kernels import Kernels


class WasmBackend(ReferenceBackend):
    """One thread; what no kernel computes, numpy does."""

    tier: Tier = "wasm"

    def __init__(self, kernels: Kernels) -> None:
        super().__init__(WasmFunctions(kernels).table(), kernels.empty)
        self.device_name = kernels.name
