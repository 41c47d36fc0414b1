"""Compile shaders before they are needed: for a kind of model, or for one model.

No platform exposes compiled shaders. "Cached" means: the pipelines are ready on the device that
this object holds open; their sources are remembered, so a page's next visit compiles them while
Python starts; and a shader that failed is never tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import cast

from bascule.backend.base import Tier
from bascule.backend.tiers import SHADER_TIERS, BackendType
from bascule.base.arguments import one_of
from bascule.base.progress import Progress, ProgressCallback
from bascule.base.waiting import shared_task, start
from bascule.choosing.switches import read_switches
from bascule.compat.inference import MODEL_TYPES
from bascule.compat.kind_programs import PROGRAMS
from bascule.compat.own_device import OwnDevice
from bascule.compat.platform import UnifiedWebPlatform
from bascule.device.device import Device, open_device
from bascule.device.loading import read_programs
from bascule.errors import InputError, TierUnavailableError
from bascule.program.program import Call, Program
from bascule.program.rewrites.registry import fit_all

# Kinds of calls whose pipelines are compiled together: the first layers need not wait for the last.
_WAVE = 4


@dataclass(frozen=True, slots=True)
class Precompiled:
    """What was compiled: `pipelines` of these `operations`, in `ms` on a tier.

    A tier without shaders has none: `pipelines` is 0 and `reason` says why that tier.
    """

    operations: tuple[str, ...]
    pipelines: int
    ms: float
    tier: Tier
    reason: str


async def _open_with_shaders(platform: str, remember: bool) -> Device:
    """Open the platform; for "auto" a tier that has shaders, if one works."""
    switches = read_switches()
    shaders = [tier for tier in SHADER_TIERS if not switches.refuses(BackendType(tier))]
    if platform == "auto" and shaders:
        with suppress(TierUnavailableError):
            return await open_device(shaders, remember=remember)
    return await open_device(platform, remember=remember)


class ShaderPrecompiler:
    """Compiles what models of a kind need, before any model is loaded.

    `platform` "auto" is the best working tier with shaders, even if another is faster. `model_type`
    is one of `model_types()`. With `cache_to_indexeddb` what is learned is stored between visits
    (in a page in IndexedDB, natively in files). Both `precompile_` methods start at once and return
    a task if an event loop is running; in a plain script they run to completion.
    """

    def __init__(
        self, model_type: str = "text", cache_to_indexeddb: bool = True, *, platform: str = "auto"
    ) -> None:
        self.model_type = one_of("model_type", model_type, self.model_types())
        self._programs = PROGRAMS[model_type]()
        self._remember = cache_to_indexeddb
        self._device = OwnDevice(None, partial(_open_with_shaders, platform, cache_to_indexeddb))

    @staticmethod
    def model_types() -> tuple[str, ...]:
        """Return the known kinds."""
        return tuple(PROGRAMS)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of models of this kind, in the order of a forward pass."""
        return tuple(dict.fromkeys(c.op for p in self._programs for c in p.calls))

    def precompile_essential_shaders(
        self, progress: ProgressCallback | None = None
    ) -> Awaitable[Precompiled] | Precompiled:
        """Compile what every model of this kind runs."""
        return start(self._compile(self.operations, progress))

    def precompile_operation(
        self, name: str, progress: ProgressCallback | None = None
    ) -> Awaitable[Precompiled] | Precompiled:
        """Compile one operation's shaders; InputError, at once, for an unknown one."""
        if name not in self.operations:
            raise InputError("precompile_operation", f"one of {', '.join(self.operations)}", name)
        return start(self._compile((name,), progress))

    async def device(self) -> Device:
        """Return the device with the shaders, whose `load` needs no others; `close` closes it."""
        return await self._device.get()

    def close(self) -> None:
        """Close the device with its shaders."""
        self._device.close()

    async def _compile(
        self, operations: Sequence[str], progress: ProgressCallback | None
    ) -> Precompiled:
        name = f"{self.model_type} models" if self._remember else ""
        device = await self._device.get()
        return await _compile(device, self._programs, operations, name, progress)


class ModelSpecificPrecompiler:
    """Compiles what one model needs, from its config.json alone, and loads the model on the same
    device.

    `platform` is that of `ShaderPrecompiler`, `model_type` that of `UnifiedWebPlatform`. With a
    running event loop methods start at once and return a task; in a plain script `precompile_all`
    runs to completion.
    """

    def __init__(
        self,
        model_name: str,
        model_type: str = "text",
        cache_results: bool = True,
        *,
        platform: str = "auto",
    ) -> None:
        self.model_name = model_name
        self.model_type = one_of("model_type", model_type, tuple(MODEL_TYPES))
        self._remember = cache_results
        self._device = OwnDevice(None, partial(_open_with_shaders, platform, cache_results))
        self._listeners: list[Callable[[str, float], None]] = []
        self._compiling: dict[str, asyncio.Task[Precompiled]] = {}

    def on_progress(self, callback: Callable[[str, float], None]) -> None:
        """Call `callback(stage, percent)` while shaders compile and the model loads."""
        self._listeners.append(callback)

    def precompile_all(
        self, progress: ProgressCallback | None = None
    ) -> Awaitable[Precompiled] | Precompiled:
        """Compile every shader of the model, those of its first layers first."""
        return start(self._compiled(progress))

    async def get_model_with_precompiled_shaders(self) -> UnifiedWebPlatform:
        """Return the loaded model as a platform whose `run_inference` waits for no shader.

        It shares this object's device: close the model first, then this.
        """
        await self._compiled(None)
        device = await self._device.get()
        platform = UnifiedWebPlatform(self.model_name, self.model_type, device=device)
        for listener in self._listeners:
            platform.on_progress(listener)
        await cast(Awaitable[object], platform.load_model())  # a loop runs here
        return platform

    def close(self) -> None:
        """Close the device with its shaders."""
        self._device.close()
        self._compiling.clear()

    async def _compiled(self, progress: ProgressCallback | None) -> Precompiled:
        """Compile once; concurrent callers wait for the same result."""
        work = partial(self._compile, progress)
        return await asyncio.shield(shared_task(self._compiling, self.model_name, work))

    async def _compile(self, progress: ProgressCallback | None) -> Precompiled:
        def notify(step: Progress) -> None:
            if progress is not None:
                progress(step)
            for listener in self._listeners:
                listener(step.stage, 100 * step.fraction)

        programs = await read_programs(self.model_name)
        device = await self._device.get()
        operations = tuple(dict.fromkeys(c.op for p in programs for c in p.calls))
        name = self.model_name if self._remember else ""
        return await _compile(device, programs, operations, name, notify)


async def _compile(
    device: Device,
    programs: Sequence[Program],
    operations: Sequence[str],
    name: str,
    progress: ProgressCallback | None,
) -> Precompiled:
    """Compile in waves, in the order of a forward pass of the smallest bucket."""
    began, backend = perf_counter(), device.backend
    _, programs = fit_all(programs, backend.limits)
    # Calls that differ only in sizes mostly share a pipeline: one of each kind goes first.
    kinds: dict[tuple[object, ...], Call] = {}
    for call in (c for p in programs for c in p.calls if c.op in operations):
        kinds.setdefault(_kind(call), call)
    first = list(kinds.values())
    for at in range(0, len(first), _WAVE):
        if progress is not None:
            progress(Progress("pipelines", at, len(first), "kinds"))
        async with backend.turns.turn():
            await backend.warm([_of_calls(programs[0], first[at : at + _WAVE])])
    chosen = [_of_calls(p, [c for c in p.calls if c.op in operations]) for p in programs]
    # Only a whole model's list is remembered under its name.
    complete = {c.op for p in programs for c in p.calls} == set(operations)
    async with backend.turns.turn():
        count = await backend.warm(chosen, name if complete else "")
    if progress is not None:
        progress(Progress("pipelines", len(first), len(first), "kinds"))
    ms = 1e3 * (perf_counter() - began)
    return Precompiled(tuple(operations), count, ms, backend.tier, device.tier_reason)


def _kind(call: Call) -> tuple[object, ...]:
    present = tuple(o is not None for o in call.operands)
    return call.op, call.attributes, present


def _of_calls(program: Program, calls: Sequence[Call]) -> Program:
    return replace(program, calls=tuple(calls))
