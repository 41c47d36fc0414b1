"""Compiled pipelines of one device, each compiled once, missing ones concurrently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from bascule.backend.profile import ShaderLog
from bascule.backend.tracing import Tracer
from bascule.backend.webgpu.choices import Choices
from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates, select
from bascule.errors import ShaderError
from bascule.program.program import Call


@dataclass(frozen=True, slots=True)
class Fault:
    """A compiled kernel that must not be used: it is `wrong`, or the device rejects it."""

    kernel: Kernel
    problem: str
    wrong: bool


Prover = Callable[[Sequence[Call], Sequence[Kernel]], Awaitable[list[Fault]]]


class Pipelines:
    """Pipelines by kernel key; a call whose kernel does not compile gets its next candidate."""

    def __init__(self, gpu: Gpu, choices: Choices | None = None) -> None:
        self._gpu = gpu
        self.choices = choices or Choices()
        self._making: dict[Hashable, asyncio.Task[int]] = {}
        self.compile_ms: dict[str, float] = {}
        self.log: list[ShaderLog] | None = None  # compilations, while they are needed
        self.tracer: Tracer | None = None  # of passes that run from now on
        self.names: dict[int, str] = {}  # the variant of each pipeline, by its handle
        # Returns which of the compiled kernels, one per call, are wrong, and why; see `proving`.
        self.prover: Prover | None = None
        self.n_failed = 0
        self.n_retries_of_failed = 0

    def __len__(self) -> int:
        return len(self._making)

    async def kernels_for(self, calls: Sequence[Call]) -> list[Kernel]:
        """Return a compiled kernel for each call, proven if there is a `prover`.

        The first ShaderError if no candidate compiles, WrongResultError if those that do are wrong.
        Failures are remembered, and never tried again on this machine.
        """
        adapter, choices = self._gpu.adapter, self.choices
        try:
            while True:
                kernels = [select(call, adapter, choices) for call in calls]
                self._refuse(calls, kernels)  # of an earlier run
                failed = await self.attempt(kernels)
                for kernel, error in failed:
                    choices.note_failure(kernel, error.messages)
                faults = await self._faults(calls, kernels) if not failed else []
                for fault in faults:
                    choices.note_failure(fault.kernel, [(0, fault.problem)], wrong=fault.wrong)
                if not failed and not faults:
                    return kernels
                self._refuse(calls, kernels)
        finally:
            await choices.save()

    async def _faults(self, calls: Sequence[Call], kernels: Sequence[Kernel]) -> list[Fault]:
        return [] if self.prover is None else await self.prover(calls, kernels)

    def _refuse(self, calls: Sequence[Call], kernels: Sequence[Kernel]) -> None:
        """Raise for the first call whose candidates have all failed."""
        for call, kernel in zip(calls, kernels, strict=True):
            if kernel.digest in self.choices.failed:
                gone = self.choices.give_up(call, candidates(call, self._gpu.adapter))
                if gone is not None:
                    raise gone

    async def attempt(self, kernels: Iterable[Kernel]) -> list[tuple[Kernel, ShaderError]]:
        """Compile what is missing, concurrently; return the kernels that do not compile."""
        wanted = {kernel.key: kernel for kernel in kernels}
        for key, kernel in wanted.items():
            if key not in self._making or _is_of_other_loop(self._making[key]):
                task = self._making[key] = asyncio.ensure_future(self._make(kernel))
                task.add_done_callback(partial(self._drop_failed, key))
        # Finished tasks are not awaited: they may belong to a loop that has ended.
        pending = {k: task for k in wanted if not _has_finished(task := self._making[k])}
        # Shielded: others may wait for the same pipeline if one caller is cancelled.
        waits = [asyncio.shield(task) for task in pending.values()]
        results = await asyncio.gather(*waits, return_exceptions=True)
        failed: list[tuple[Kernel, ShaderError]] = []
        for key, result in zip(pending, results, strict=True):
            if isinstance(result, ShaderError):
                failed.append((wanted[key], result))
            elif isinstance(result, BaseException):
                raise result
        return failed

    async def ensure(self, kernels: Iterable[Kernel]) -> None:
        """Compile what is missing; raises the first ShaderError."""
        failed = await self.attempt(kernels)
        if failed:
            raise failed[0][1]

    def handle(self, kernel: Kernel) -> int:
        """Return the handle of a compiled pipeline."""
        return self._making[kernel.key].result()

    def _drop_failed(self, key: Hashable, task: asyncio.Task[int]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._making.get(key) is task:
            del self._making[key]

    async def _make(self, kernel: Kernel) -> int:
        known = self.choices.failed.get(kernel.digest)
        self.n_retries_of_failed += known is not None and known.earlier
        began, messages = perf_counter(), ()
        try:
            pipeline = await self._gpu.pipeline(
                kernel.wgsl, kernel.constants, kernel.bindings, kernel.label
            )
            self.names[pipeline] = kernel.variant
            return pipeline
        except ShaderError as error:
            self.n_failed += 1
            messages = error.messages
            raise
        finally:
            ms = self.compile_ms[kernel.digest] = 1e3 * (perf_counter() - began)
            if self.log is not None:
                self.log.append(ShaderLog(kernel.label, kernel.variant, ms, messages))


def _is_of_other_loop(task: asyncio.Task[int]) -> bool:
    """Whether it is unfinished in another event loop, which may never run again."""
    return not task.done() and task.get_loop() is not asyncio.get_running_loop()


def _has_finished(task: asyncio.Task[int]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
