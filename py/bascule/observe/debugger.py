"""WebGPUDebugger: find the first dispatch of a model that computes something wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path

from bascule.backend.base import Backend
from bascule.backend.tracing import Tracer
from bascule.base.arguments import described, whole_number
from bascule.base.waiting import start
from bascule.choosing.openers import OpenDevice
from bascule.compat.platform import UnifiedWebPlatform
from bascule.device.device import Device
from bascule.errors import InputError
from bascule.observe.roofline import ShaderPerformance, compare_with_roofline, measure_roofline
from bascule.observe.shader_trace import ShaderTrace
from bascule.observe.visualization import filled
from bascule.tasks.loaded import LoadedModel


class WebGPUDebugger:
    """Compares each dispatch of a model's passes with numpy, and with the device's roofline.

    `target` is a loaded model, a `Device`, or a `UnifiedWebPlatform`, which need not be loaded yet.
    `trace` is the last capture, `performance` its analysis. Only the webgpu tiers have dispatches
    to capture; on others `trace.note` says so.
    """

    def __init__(self, target: UnifiedWebPlatform | Device | LoadedModel) -> None:
        if not isinstance(target, UnifiedWebPlatform | Device | LoadedModel):
            expected = "a UnifiedWebPlatform, a Device or a loaded model"
            raise InputError("WebGPUDebugger", expected, described(target))
        self.trace: ShaderTrace | None = None
        self.performance: ShaderPerformance | None = None
        self._target = target
        self._backend: Backend | None = None

    @contextmanager
    def capture_shader_trace(
        self, *, passes: int = 1, keep_nbytes: int = 64 << 20
    ) -> Generator[WebGPUDebugger]:
        """Capture the first `passes` passes of models in the block; `trace` has them afterwards.

        Each dispatch runs separately, with its operands read before it and its results after it,
        and numpy computes the same from those operands. Arrays of up to `keep_nbytes` stay in the
        trace. InputError if another capture is running on the device.
        """
        whole_number("capture_shader_trace, passes", passes, 1)
        whole_number("capture_shader_trace, keep_nbytes", keep_nbytes, 0)
        self.trace = self.performance = self._backend = None
        tracer = Tracer(passes, keep_nbytes)
        end, reason = self._listen(tracer)
        try:
            yield self
        finally:
            end()
            self.trace = self._traced(tracer, reason)

    def analyze_shader_performance(self) -> Awaitable[ShaderPerformance] | ShaderPerformance:
        """Compare each timed dispatch of the trace with this device's roofline, measured now.

        Await it if an event loop is running. InputError without a trace of timed dispatches.
        """
        return start(self._analyze())

    def export_debug_report(self, file: str | PathLike[str]) -> Path:
        """Write the trace, its analysis if there is one, and each kernel's WGSL as one HTML page.

        The page is self-contained. InputError without a trace.
        """
        trace = self._need_trace("export_debug_report")
        path = Path(file)
        path.write_text(debug_page(trace, self.performance), "utf-8")
        return path

    def _listen(self, tracer: Tracer) -> tuple[Callable[[], None], list[str]]:
        """Trace the target's device, now or once it is open; return a function that stops it, and
        reasons not to trace.
        """
        reasons: list[str] = []
        unwatch: list[Callable[[], None]] = []

        def trace(opened: OpenDevice) -> None:
            if reason := opened.backend.trace_with(tracer):
                reasons.append(reason)
            self._backend = opened.backend

        async def ignore(_: OpenDevice) -> None:
            """Before the model is loaded only trials of kernels run."""

        def end() -> None:
            while unwatch:
                unwatch.pop()()
            if self._backend is not None:
                self._backend.trace_with(None)

        target = self._target
        if not isinstance(target, UnifiedWebPlatform):
            trace(target)
        elif target.model is not None:
            trace(target.model)
        else:
            unwatch.append(target.watch(ignore, trace))
        return end, reasons

    def _traced(self, tracer: Tracer, reasons: list[str]) -> ShaderTrace | None:
        backend = self._backend
        if backend is None:  # nothing was loaded
            return None
        note = f"Nothing was captured on the {backend.tier} tier: {reasons[0]}." if reasons else ""
        name, calls = backend.device_name, tuple(tracer.calls)
        return ShaderTrace(backend.tier, name, tracer.timed_by, tracer.n_passes, calls, note)

    async def _analyze(self) -> ShaderPerformance:
        trace, backend = self._need_trace("analyze_shader_performance"), self._backend
        if backend is None or not trace.timed_by:
            expected, result = "a trace with timed dispatches", str(trace)
            hint = "End a PerformanceMonitor on this device first, and use tier='webgpu'."
            raise InputError("analyze_shader_performance", expected, result, hint=hint)
        self.performance = compare_with_roofline(await measure_roofline(backend), trace.calls)
        return self.performance

    def _need_trace(self, verb: str) -> ShaderTrace:
        if self.trace is None:
            hint = "Run a loaded model inside `with debugger.capture_shader_trace():`."
            raise InputError(verb, "a captured trace", "none", hint=hint)
        return self.trace


def debug_page(trace: ShaderTrace, performance: ShaderPerformance | None) -> str:
    """Return a trace as one HTML page: web/reports/debug.html with the numbers inside."""
    numbers = trace.as_json()
    numbers["performance"] = None if performance is None else asdict(performance)
    title = f"Shaders on {trace.tier} ({trace.device})"
    return filled("debug.html", title, numbers)
