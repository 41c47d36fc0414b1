"""Operations that go on where the plain way cannot: within limits, in parts, on another tier.

`FallbackManager` answers for any browser, `SafariWebGPUFallback` for a Safari by its version. Which
operations and strategies there are: `bascule.compat.fallback.operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Self

from bascule.base.waiting import start, sync
from bascule.compat.fallback.answers import Answer, answer, is_told, limits_of, memory_budget
from bascule.compat.fallback.operation_work import Operation, Request
from bascule.compat.fallback.operations import operation_named, wrapped
from bascule.compat.fallback.runs import FallbackRuns
from bascule.compat.fallback.safari import SafariVersion
from bascule.compat.fallback.settings import mapping_of, read_settings, tier_named
from bascule.compat.fallback.telemetry import Telemetry
from bascule.errors import InputError, SetupError
from bascule.machine.capabilities import Capabilities, capabilities
from bascule.machine.safari import is_safari, safari_capabilities
from bascule.program.rewrites.rewrite import Limits, Taken


class FallbackManager(SafariVersion):
    """Runs operations by name, the plain way where that fits and another way where it does not.

    Of a Safari that `browser_info` names ("name", "version") its table says what needs a fallback;
    else probing does, which needs no `browser_info`. `model_type` is "text", "vision", "audio" or
    "multimodal": what "embedding" means, of tokens or of patches. `config` may have "tier",
    "device", "capabilities", "memory_budget_nbytes", "binding_nbytes", "dispatch_work",
    "weights_nbytes" and "classify" (see `fallback.settings.read_settings`).
    What an operation would hold past `memory_threshold` of the memory budget makes it run in
    pieces, and where the smallest hold more it is refused (LimitError, with the bytes); matrices
    are divided only with `enable_layer_processing`. `error_handler`, or its method
    `handle_error`, is called with every error, those that are recovered from among them.

    Close it, or use it in `with` or `async with`. InputError for arguments that make no sense.
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
        self._found: Capabilities | None = None

    async def ready(self) -> Self:
        """Probe the machine where the settings do not tell what it is; once."""
        if self._found is None and not is_told(self.settings):
            self._found = await capabilities()
        return self

    def needs_fallback(self, operation_name: str) -> bool:
        """Whether the plain way of that operation would be held back in this browser.

        The machine is probed when that is asked first; where an event loop runs, `await ready()`
        before (SetupError). InputError for an unknown operation, with the known ones.
        """
        return self._answer(
            operation_named(operation_name, "needs_fallback", self.settings.model_type)
        ).needed

    def run_with_fallback(
        self,
        operation: str | Callable[..., Any],
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation; gives its result, or an awaitable of it where an event loop runs.

        A named one takes the arrays and the settings that `operations.OPERATIONS` says, and "tier"
        in its context, and gives a float32 array. A callable (which may be async) is called with
        `inputs`, and if it has a second parameter, with the context as well; on a failure that may
        pass it is called again, its context then with the "tier" to take and the "memory_scale" of
        its chunks. InputError for what makes no sense; else the last error, as it is.
        """
        return self.start_operation(operation, inputs, context)

    def get_performance_metrics(self) -> dict[str, Any]:
        """Counts since the start, or the last reset.

        `fallback_activations` counts operations that took a strategy, failed at first or ran
        elsewhere for want of a GPU, `native_operations` the others, `layer_operations` those whose
        matrices were split, `wasm_fallbacks` those that so ended on "wasm" or "cpu" without being
        asked to. `operation_timings` are milliseconds, `memory_usage` bytes: `peak_nbytes` is
        the most that the driver has counted at a time (on tiers without a device: what was planned
        for the largest piece), `plain_nbytes` what doing it at once would hold.
        """
        return self._telemetry.as_metrics()

    @property
    def last_taken(self) -> tuple[Taken, ...]:
        """The strategies that the last named operation took: why, and into how many parts."""
        return self._runs.last_taken

    def reset_metrics(self) -> None:
        """Count from zero again."""
        self._telemetry.reset()

    def close(self) -> None:
        """Free the tiers that were opened here. Closing twice is fine."""
        self._runs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def start_operation(
        self,
        operation: str | Callable[..., Any],
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None,
        *,
        forced: bool = False,
    ) -> Any:
        """What `run_with_fallback` does; `forced` takes a named one's strategy in any case."""
        given = mapping_of(context, "context")
        if callable(operation):
            return start(self._runs.called(operation, inputs, given))
        model = self.settings.model_type
        known = operation_named(operation, "run_with_fallback", model, inputs)
        request = Request(known, mapping_of(inputs, f"inputs of {known.name}"), given)
        wanted = tier_named(given.get("tier", self.settings.tier), "context 'tier'")
        if known.name == "shader_compilation":
            request = wrapped(request)
            # The device of the least that every one grants: none of its shaders wants more.
            wanted = "webgpu-limited" if wanted in ("auto", "webgpu") else wanted
        request.check_names()
        return start(self._named(request, wanted, forced, known))

    def _answer(self, operation: Operation) -> Answer:
        if self._found is None and not is_told(self.settings):
            try:
                sync(self.ready())
            except SetupError:
                hint = "Call `await manager.ready()` once before."
                raise SetupError("The machine is not probed yet.", hint=hint) from None
        return answer(self.settings, operation, self._found)

    async def _named(self, request: Request, wanted: str, forced: bool, asked: Operation) -> Any:
        await self.ready()
        wanted_by = "it was asked for" if forced else self._answer(asked).by_table
        return await self._runs.named(asked.name, request, wanted, wanted_by, self._found)


class SafariWebGPUFallback(SafariVersion):
    """The same for a Safari that need not be there: its version alone says what it needs.

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
        """Run a named operation by its strategy, whether or not a table or a limit asks for it: in
        two pieces at least, where it can be divided; else as `FallbackManager.run_with_fallback`.
        """
        operation_named(operation_name, "execute_with_fallback")
        return self.manager.start_operation(operation_name, inputs, context, forced=True)

    def close(self) -> None:
        """See `FallbackManager.close`."""
        self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_optimal_fallback_strategy(
    model_type: str,
    browser_info: Mapping[str, Any] | None,
    operation_type: str,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What FallbackManager would do for such an operation, as plain values; probes nothing.

    `operation` is its name in the table, `needs_fallback` and `reasons` what the browser's table or
    the configuration say, `strategy` the rewrite that is made for it, `strategies` all that may be
    taken, in order. `tier` is where it would run, `limits` those it would run within
    (`binding_nbytes` of a tensor, `memory_nbytes` of all buffers; None: no bound),
    `memory_threshold` and `layer_processing` how.
    """
    settings = read_settings(browser_info, model_type, config)
    where = "create_optimal_fallback_strategy"
    operation = operation_named(operation_type, where, settings.model_type)
    result = answer(settings, operation, None)
    room = memory_budget(settings, None) * settings.memory_threshold
    limits = limits_of(settings, room, Limits())
    record = settings.capabilities or safari_capabilities(settings.browser_info)
    has_gpu = record is None or record.has_adapter
    return {
        "operation": operation.name,
        "model_type": settings.model_type,
        "needs_fallback": result.needed,
        "reasons": list(result.reasons),
        "strategy": operation.strategies[0],
        "strategies": list(operation.strategies),
        "tier": settings.tier if settings.tier != "auto" else "webgpu" if has_gpu else "wasm",
        "limits": {name: _bound(getattr(limits, name)) for name in Limits.__slots__},
        "memory_threshold": settings.memory_threshold,
        "layer_processing": settings.layer_processing,
    }


def _bound(limit: float) -> int | None:
    return int(limit) if isfinite(limit) else None


def _handler_of(given: Any) -> Callable[[BaseException], Any]:
    """What is called with every error."""
    handler = getattr(given, "handle_error", given)
    if given is not None and not callable(handler):
        expected = "a callable, or an object with a method handle_error"
        raise InputError("error_handler", expected, type(given).__name__)
    return handler or (lambda _: None)
