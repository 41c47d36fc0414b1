"""The WebAssembly tier: the CPU tier with kernels of 128-bit SIMD for what takes the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.backend.base import Executable, Tier
from bascule.backend.cpu import Functions, ReferenceBackend, ReferenceStates, ReferenceStore
from bascule.backend.wasm.kernels import Kernels
from bascule.backend.wasm.language import LanguageFunctions
from bascule.backend.wasm.replay import ReplayExecutable

if TYPE_CHECKING:
    from bascule.program.program import Program


class WasmBackend(ReferenceBackend):
    """One thread; what no kernel computes, numpy does."""

    tier: Tier = "wasm"

    def __init__(self, kernels: Kernels) -> None:
        super().__init__(functions_of(kernels), kernels.empty)
        self.device_name = kernels.name
        self._kernels = kernels

    def _executable(
        self, program: Program, weights: ReferenceStore, states: ReferenceStates | None
    ) -> Executable:
        return ReplayExecutable(program, weights, states, self._kernels, functions_of)


def functions_of(kernels: Kernels) -> Functions:
    """Every op's function."""
    return LanguageFunctions(kernels).table()
