"""Operations with fallbacks: within limits, in pieces, on another tier.

`FallbackManager` is for any browser, `SafariWebGPUFallback` for a Safari by its version. The table
of operations and strategies: `bascule.compat.fallback.operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Self

from bascule.base.closing import Closing
from bascule.base.waiting import start, sync
from bascule.compat.fallback.answers import (
    FallbackNeed,
    describes_machine,
    fallback_need,
    limits_of,
    memory_budget,
)
from bascule.compat.fallback.operation_work import Operation, Request
from bascule.compat.fallback.operations import operation_named, unwrapped
from bascule.compat.fallback.runs import FallbackRuns
from bascule.compat.fallback.safari import SafariVersion
from bascule.compat.fallback.settings import mapping_of, read_settings, tier_named
from bascule.compat.fallback.telemetry import Telemetry
from bascule.errors import InputError, SetupError
from bascule.machine.capabilities import Capabilities, capabilities
from bascule.machine.safari import is_safari, safari_capabilities
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


class FallbackManager(SafariVersion, Closing):
    """Runs operations by name, in one piece if that fits, else by a fallback.

    For a Safari in `browser_info` ("name", "version") a table says what needs a fallback; without
    `browser_info` the machine is probed. `model_type` is "text", "vision", "audio" or "multimodal":
    whether "embedding" is of tokens or of patches. `config` may have "tier", "device",
    "capabilities", "memory_budget_nbytes", "binding_nbytes", "dispatch_work", "weights_nbytes" and
    "classify" (see `fallback.settings.read_settings`).

    An operation that needs more than `memory_threshold` of the memory budget runs in pieces, and is
    rejected if the smallest need more, too (LimitError, with the bytes); matrices are divided only
    with `enable_layer_processing`. `error_handler`, or its method `handle_error`, is called with
    every error, also before a recovery. Close it, or use it in `with` or `async with`. InputError
    for invalid arguments.
    """

    def __init__(
        self,
        browser_info: Mapping[str, Any] | None = None,
        model_type: str = "text",
        config: Mapping[str, Any] | None = None,
        error_handler: Any = None,
        enable_layer_processing: bool = True,
        memory_threshold: float = 0.8,
        enable_telemetry: bool = True,
    ) -> None:
        self.settings = read_settings(
            browser_info,
            model_type,
            config,
            layer_processing=enable_layer_processing,
            memory_threshold=memory_threshold,
        )
        self.browser_info = self.settings.browser_info
        self._telemetry = Telemetry(bool(enable_telemetry))
        self._runs = FallbackRuns(self.settings, self._telemetry, _handler_of(error_handler))
        self._probed: Capabilities | None = None

    async def ready(self) -> Self:
        """Probe the machine once, unless the settings describe it."""
        if self._probed is None and not describes_machine(self.settings):
            self._probed = await capabilities()
        return self

    def needs_fallback(self, operation_name: str) -> bool:
        """Whether that operation needs a fallback in this browser.

        The first call probes the machine; if an event loop is running, `await ready()` first
        (SetupError). InputError for an unknown operation, with the known ones.
        """
        return self._need(
            operation_named(operation_name, "needs_fallback", self.settings.model_type)
        ).needed

    def run_with_fallback(
        self,
        operation: str | Callable[..., Any],
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation; return its result, or an awaitable of it if an event loop is running.

        A named one takes the arrays and settings of its row in `operations.OPERATIONS`, and "tier"
        in its context, and returns a float32 array. A callable (which may be async) is called with
        `inputs`, and if it has a second parameter, with the context; after a transient failure it
        is called again, with the "tier" to use and the "memory_scale" of its chunks in the context.
        InputError for invalid arguments; else the last error, unchanged.
        """
        return self.start_operation(operation, inputs, context)

    def get_performance_metrics(self) -> dict[str, Any]:
        """Counts since the start, or the last reset.

        `fallback_activations` counts operations that used a strategy, failed at first or ran
        elsewhere without a GPU, `native_operations` the others, `layer_operations` those whose
        matrices were divided, `wasm_fallbacks` those that fell back to "wasm" or "cpu".
        `operation_timings` are milliseconds, `memory_usage` bytes: `peak_nbytes` is the peak by the
        driver's count (on tiers without a device: what was planned for the largest piece),
        `plain_nbytes` what the operation would hold in one piece.
        """
        return self._telemetry.as_metrics()

    @property
    def last_applied(self) -> tuple[AppliedRewrite, ...]:
        """The strategies that the last named operation used: the reasons and numbers of pieces."""
        return self._runs.last_applied

    def reset_metrics(self) -> None:
        """Count from zero again."""
        self._telemetry.reset()

    def close(self) -> None:
        """Close the devices that were opened here. Closing twice is fine."""
        self._runs.close()

    def start_operation(
        self,
        operation: str | Callable[..., Any],
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None,
        *,
        forced: bool = False,
    ) -> Any:
        """As `run_with_fallback`; with `forced` a named one uses its strategy in any case."""
        settings = mapping_of(context, "context")
        if callable(operation):
            return start(self._runs.run_callable(operation, inputs, settings))
        model = self.settings.model_type
        known = operation_named(operation, "run_with_fallback", model, inputs)
        request = Request(known, mapping_of(inputs, f"inputs of {known.name}"), settings)
        tier = tier_named(settings.get("tier", self.settings.tier), "context 'tier'")
        if known.name == "shader_compilation":
            request = unwrapped(request)
            # A device with the default limits has the simplest shaders.
            tier = "webgpu-limited" if tier in ("auto", "webgpu") else tier
        request.check_names()
        return start(self._run_named(request, tier, forced, known))

    def _need(self, operation: Operation) -> FallbackNeed:
        if self._probed is None and not describes_machine(self.settings):
            try:
                sync(self.ready())
            except SetupError:
                hint = "Call `await manager.ready()` once before."
                raise SetupError("The machine is not probed yet.", hint=hint) from None
        return fallback_need(self.settings, operation, self._probed)

    async def _run_named(
        self, request: Request, tier: str, forced: bool, operation: Operation
    ) -> Any:
        await self.ready()
        forced_by = "it was asked for" if forced else self._need(operation).by_table
        return await self._runs.run_operation(
            operation.name, request, tier, forced_by, self._probed
        )


class SafariWebGPUFallback(SafariVersion, Closing):
    """FallbackManager for a Safari by its version alone, on any machine.

    `browser_info` is that of a Safari ("name" may be left out), `config` as for FallbackManager.
    Close it, or use it in `with`.
    """

    def __init__(
        self,
        browser_info: Mapping[str, Any] | None = None,
        model_type: str = "text",
        config: Mapping[str, Any] | None = None,
        enable_layer_processing: bool = True,
    ) -> None:
        self.browser_info = {"name": "safari", **mapping_of(browser_info, "browser_info")}
        if not is_safari(self.browser_info):
            browser = repr(self.browser_info["name"])[:80]
            raise InputError("SafariWebGPUFallback", "the browser_info of a Safari", browser)
        self.manager = FallbackManager(
            self.browser_info, model_type, config, enable_layer_processing=enable_layer_processing
        )

    def needs_fallback(self, operation_name: str) -> bool:
        """See `FallbackManager.needs_fallback`."""
        return self.manager.needs_fallback(operation_name)

    def execute_with_fallback(
        self,
        operation_name: str,
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a named operation by its strategy, even if no table or limit requires that: in at
        least two pieces, if it can be divided. Otherwise as `FallbackManager.run_with_fallback`.
        """
        operation_named(operation_name, "execute_with_fallback")
        return self.manager.start_operation(operation_name, inputs, context, forced=True)

    def close(self) -> None:
        """See `FallbackManager.close`."""
        self.manager.close()


def create_optimal_fallback_strategy(
    model_type: str,
    browser_info: Mapping[str, Any] | None,
    operation_type: str,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what FallbackManager would do for such an operation, as plain values, without probing.

    `operation` is its name in the table, `needs_fallback` and `reasons` follow from the browser's
    table or the configuration, `strategy` is the most specific one, `strategies` all of them in
    order. `tier` is where it would run, `limits` those that apply (`binding_nbytes` of a tensor,
    `memory_nbytes` of all buffers; None: no bound), with `memory_threshold` and `layer_processing`.
    """
    settings = read_settings(browser_info, model_type, config)
    where = "create_optimal_fallback_strategy"
    operation = operation_named(operation_type, where, settings.model_type)
    need = fallback_need(settings, operation, None)
    memory_nbytes = memory_budget(settings, None) * settings.memory_threshold
    limits = limits_of(settings, memory_nbytes, Limits())
    record = settings.capabilities or safari_capabilities(settings.browser_info)
    has_gpu = record is None or record.has_adapter
    return {
        "operation": operation.name,
        "model_type": settings.model_type,
        "needs_fallback": need.needed,
        "reasons": list(need.reasons),
        "strategy": operation.strategies[0],
        "strategies": list(operation.strategies),
        "tier": settings.tier if settings.tier != "auto" else "webgpu" if has_gpu else "wasm",
        "limits": {name: _bound(getattr(limits, name)) for name in Limits.__slots__},
        "memory_threshold": settings.memory_threshold,
        "layer_processing": settings.layer_processing,
    }


def _bound(limit: float) -> int | None:
    return int(limit) if isfinite(limit) else None


def _handler_of(value: Any) -> Callable[[BaseException], Any]:
    """The function to call with every error."""
    handler = getattr(value, "handle_error", value)
    if value is not None and not callable(handler):
        expected = "a callable, or an object with a method handle_error"
        raise InputError("error_handler", expected, type(value).__name__)
    return handler or (lambda _: None)
