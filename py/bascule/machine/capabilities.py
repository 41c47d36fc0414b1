"""What a machine can do: one record, filled by probing and never from a browser's name.

Nothing here imports the page, wgpu or numpy; the probing is in `capabilities_browser` and
`capabilities_native`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bascule.errors import BasculeError
from bascule.machine.facts import DEFAULT_MEMORY_BUDGET_NBYTES, READERS, memory_budget

_DISPATCH_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a machine. None is unknown: real devices leave out any of these.

    `problems` says why something is missing or unknown, by the name of the field ("webgpu" for the
    adapter itself).
    """

    host: str | None = None  # "page", "native", or "table" where safari.py answers
    # The WebGPU adapter; all None if there is none.
    vendor: str | None = None
    architecture: str | None = None
    device: str | None = None
    description: str | None = None
    driver: str | None = None
    backend: str | None = None  # "Vulkan", "Metal", "D3D12"; unknown in a page
    is_fallback_adapter: bool | None = None
    software: bool | None = None  # runs on the CPU: a fallback adapter, or known by its name
    features: frozenset[str] | None = None
    limits: Mapping[str, int] | None = None
    wgsl_features: frozenset[str] | None = None
    subgroup_min_size: int | None = None
    subgroup_max_size: int | None = None
    dispatch: bool | None = None  # whether a real dispatch gave the right numbers
    # The engine that runs this code; what only pages have is False natively.
    engine: str | None = None  # "v8", "spidermonkey", "javascriptcore" or "cpython"
    jspi: bool | None = None
    threads: bool | None = None  # in a page: cross-origin isolated, with SharedArrayBuffer
    n_cores: int | None = None
    wasm_simd: bool | None = None
    wasm_relaxed_simd: bool | None = None
    opfs: bool | None = None
    opfs_sync: bool | None = None  # handles that read and write at once: in workers only
    indexeddb: bool | None = None
    compute_pressure: bool | None = None  # whether it reports the pressure on the processor
    webnn: frozenset[str] | None = None  # kinds of device that it makes a context for
    # Memory and storage, in bytes.
    device_memory_nbytes: int | None = None
    memory_budget_nbytes: int = DEFAULT_MEMORY_BUDGET_NBYTES
    storage_quota_nbytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    problems: Mapping[str, str] = field(default_factory=dict[str, str])
    build: str = ""  # the browser's own word for itself: compared, never read

    @property
    def has_adapter(self) -> bool:
        """Whether WebGPU has an adapter; `dispatch` says whether it computes."""
        return self.features is not None

    @property
    def adapter_name(self) -> str:
        """Return one line for people, from the most informative fields."""
        family = " ".join(word for word in (self.vendor, self.architecture) if word)
        return self.description or self.device or family or ("GPU" if self.has_adapter else "none")

    @property
    def data_types(self) -> frozenset[str]:
        """The number types that the adapter computes with; empty without an adapter."""
        if not self.has_adapter:
            return frozenset()
        types = {"float32", "int32", "uint32"}
        if "shader-f16" in (self.features or ()):
            types |= {"float16"}
        if "packed_4x8_integer_dot_product" in (self.wgsl_features or ()):
            types |= {"int8", "uint8"}
        return frozenset(types)

    @property
    def identity(self) -> str:
        """A text that changes with the device, driver, browser or Bascule; only compared."""
        device = (self.vendor, self.architecture, self.device, self.description, self.driver)
        shape = (sorted(self.features or ()), sorted((self.limits or {}).items()))
        return repr((device, shape, sorted(self.versions.items()), self.build))

    def as_json(self) -> dict[str, Any]:
        """Return plain values; `from_facts` reads them."""
        plain = asdict(self)
        return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in plain.items()}


def from_facts(facts: Mapping[str, object]) -> Capabilities:
    """Make a record from a prober's facts, by field name.

    A value of the wrong type counts as unknown, an unknown name is ignored. If there is no memory
    budget, `memory_budget` derives it from the memory and the adapter's limits.
    """
    known = {
        each.name: READERS[str(each.type)](facts.get(each.name)) for each in fields(Capabilities)
    }
    result = Capabilities(**{name: value for name, value in known.items() if value is not None})
    if known["memory_budget_nbytes"] is not None:
        return result
    budget = memory_budget(result.host, result.device_memory_nbytes, result.limits)
    return replace(result, memory_budget_nbytes=budget)


async def capabilities(*, dispatch: bool = True) -> Capabilities:
    """Probe this machine or page. Raises nothing: errors are in `problems`.

    `dispatch` also opens a device and runs a shader (tens of milliseconds or more); without it that
    field is None. Each call probes again: keep the record.
    """
    if sys.platform == "emscripten":
        from bascule.machine.capabilities_browser import browser_facts

        result = from_facts(await browser_facts())
    else:
        from bascule.machine.capabilities_native import native_facts

        result = from_facts(await native_facts())
    if not dispatch or not result.has_adapter:
        return result
    works, problem = await _dispatches()
    problems = {**result.problems, "dispatch": problem} if problem else result.problems
    return replace(result, dispatch=works, problems=problems)


async def _dispatches() -> tuple[bool, str]:
    """Return whether a device computes, and why not."""
    from bascule.backend.probe import probe_dispatch
    from bascule.backend.tiers import tier_info

    try:
        async with asyncio.timeout(_DISPATCH_LIMIT_S):
            # A separate device: one that the page has opened early belongs to the first model.
            backend = await tier_info("webgpu").open(remember=False, early=False)
            try:
                await probe_dispatch(backend)
            finally:
                backend.close()
    except TimeoutError:
        return False, f"no answer within {_DISPATCH_LIMIT_S:.0f} s"
    except BasculeError as error:
        return False, str(getattr(error, "reason", error))
    except Exception as error:  # a probe reports, whatever a driver throws
        return False, f"{type(error).__name__}: {error}"
    return True, ""
