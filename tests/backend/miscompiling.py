"""A device whose compiler gets some shaders wrong: they compile, and give wrong numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bascule.backend.webgpu.gpu_native import NativeGpu

Constants = Mapping[str, float]
# The shader's file and its constants -> whether the compiler gets it wrong.
Rule = Callable[[str, Constants], bool]


class MiscompilingGpu:
    """A real device; texts of shaders that the rule names have `old` turned into `new`."""

    def __init__(self, gpu: NativeGpu, rule: Rule, old: str, new: str) -> None:
        self._gpu = gpu
        self._rule = rule
        self._old, self._new = old, new
        self.spoiled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gpu, name)

    async def pipeline(self, wgsl: str, constants: Constants, bindings: str, label: str) -> int:
        if self._rule(label, constants) and self._old in wgsl:
            self.spoiled += 1
            wgsl = wgsl.replace(self._old, self._new)
        return await self._gpu.pipeline(wgsl, constants, bindings, label)
