"""PerformanceMonitor: measure what a model, a device or a platform does between two moments."""

# pyright: reportPrivateUsage=false
# It listens to models, which no user does.

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Self

from bascule.backend.base import Backend
from bascule.base.arguments import described
from bascule.base.waiting import sync
from bascule.choosing.openers import OpenDevice
from bascule.compat.platform import UnifiedWebPlatform
from bascule.device.device import Device
from bascule.errors import InputError
from bascule.observe.performance import PerformanceReport, report_of
from bascule.observe.visualization import performance_page
from bascule.tasks.loaded import LoadedModel, ModelRun


class PerformanceMonitor:
    """Measures each kernel, compilation and call between `start` and `stop_and_get_report`.

    `target` is a loaded model, a `Device`, or a `UnifiedWebPlatform`, which need not be loaded yet.
    `start` and `stop_and_get_report` wait in synchronous code (see `bascule.sync`); if a browser
    cannot do that, `async with PerformanceMonitor(model) as monitor:` measures the block, and
    `monitor.report` has the result. One profile at a time runs on a device.
    """

    def __init__(self, target: UnifiedWebPlatform | Device | LoadedModel) -> None:
        if not isinstance(target, UnifiedWebPlatform | Device | LoadedModel):
            expected = "a UnifiedWebPlatform, a Device or a loaded model"
            raise InputError("PerformanceMonitor", expected, described(target))
        self.report: PerformanceReport | None = None
        self._target = target
        self._began_s = 0.0
        self._backend: Backend | None = None
        self._runs: list[tuple[float, ModelRun]] = []
        self._ends: list[Callable[[], None]] = []
        self._running = False

    def start(self) -> None:
        """Start measuring; InputError if it is already measuring, or another profile is running."""
        sync(self._start())

    def stop_and_get_report(self) -> PerformanceReport:
        """Stop measuring, wait for the device, and return the report.

        InputError if nothing was started, or nothing was loaded meanwhile.
        """
        return sync(self._stop())

    def generate_performance_visualization(self, path: str | PathLike[str]) -> Path:
        """Write the last report as one self-contained HTML page; return its path.

        InputError if there is no report yet.
        """
        if self.report is None:
            hint = "Call start(), do some work, then stop_and_get_report()."
            raise InputError("generate_performance_visualization", "a report", "none", hint=hint)
        result = Path(path)
        result.write_text(performance_page(self.report), "utf-8")
        return result

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._backend is not None:
            await self._stop()

    async def _start(self) -> None:
        if self._running:
            raise InputError("start", "a monitor that does not run", "one that does")
        self._runs, self._backend, self._began_s = [], None, perf_counter()
        target = self._target
        if isinstance(target, UnifiedWebPlatform):
            self._ends.append(target.watch(self._open, self._hear))
            if target.model is not None:
                await self._open(target.model)
                self._hear(target.model)
        else:
            await self._open(target)
            for model in (target,) if isinstance(target, LoadedModel) else target.models:
                self._hear(model)
        self._running = True

    async def _open(self, opened: OpenDevice) -> None:
        backend = opened.backend
        async with backend.turns.turn():
            await backend.start_profile()
        self._backend, self._began_s = backend, perf_counter()

    def _hear(self, model: LoadedModel) -> None:
        self._ends.append(model._listen(self._note))

    def _note(self, run: ModelRun) -> None:
        self._runs.append((perf_counter() - self._began_s, run))

    async def _stop(self) -> PerformanceReport:
        if not self._running:
            raise InputError("stop_and_get_report", "a monitor that runs", "one that does not")
        self._running = False
        while self._ends:
            self._ends.pop()()
        backend = self._backend
        if backend is None:
            hint = "Load the model, or run it, before you stop."
            raise InputError("stop_and_get_report", "work to report", "no model", hint=hint)
        async with backend.turns.turn():
            profile = await backend.stop_profile()
        self.report = report_of(profile, self._runs, backend.tier, backend.device_name)
        return self.report
