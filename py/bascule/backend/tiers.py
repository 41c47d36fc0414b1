"""The table of tiers: a row has what is known of a tier outside its own package.

A row's module opens it: `async open_backend(tier, *, remember, early) -> Backend`. Optionally it
has `refusal(program) -> str`, why a program cannot run there, and `async facts() -> dict`, what is
known natively without opening it. Nothing else names a backend's package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any, Literal

Tier = Literal["webgpu", "webgpu-limited", "webnn", "wasm", "cpu", "reference"]


@dataclass(frozen=True, slots=True)
class TypicalSpeeds:
    """Seconds of a single run, of one of several in a row, and of a unit of each kind of work.

    None for a kind that the tier does not do. Only the orders of magnitude matter.
    """

    once_s: float
    again_s: float
    product_s: float
    pass_s: float
    blocks_s: float | None


@dataclass(frozen=True, slots=True)
class BetterTier:
    """Another tier that does everything that this one does; `in_page`: only in pages."""

    tier: Tier
    why: str
    in_page: bool = False


@dataclass(frozen=True, slots=True)
class TierInfo:
    """One tier.

    `label` is for people, as the pages show it. `typical` are its speeds until a machine is
    measured, `in_page` and `software` those in a page and on an emulated GPU. `copies` is how many
    times a model's weights are in the machine's memory while it loads. With `is_async` a run is
    only queued; `is_gpu` says that WGSL computes in a GPU's memory. `refuses` says that its module
    has a `refusal`, `anywhere` that it runs every program wherever it opens. A tier that is not
    `chosen` opens only by name: it is not measured, chosen or fallen back to, and has no
    `BackendType`.
    """

    name: Tier
    label: str
    module: str
    typical: TypicalSpeeds
    in_page: TypicalSpeeds | None = None
    software: TypicalSpeeds | None = None
    copies: int = 1
    is_async: bool = False
    is_gpu: bool = False
    refuses: bool = False
    anywhere: bool = False
    chosen: bool = True
    better: BetterTier | None = None

    async def open(self, *, remember: bool = True, early: bool = True) -> Any:
        """Open the tier's `Backend`. TierUnavailableError if it does not work.

        With `remember` what is learned about the device is stored; with `early` a device that the
        page opened while Python started may be used.
        """
        opener: Callable[..., Awaitable[Any]] = import_module(self.module).open_backend
        return await opener(self.name, remember=remember, early=early)

    def refusal(self, program: object) -> str:
        """Return why it cannot run that program; empty if it can."""
        return import_module(self.module).refusal(program) if self.refuses else ""

    async def facts(self) -> dict[str, Any]:
        """Return natively known facts without opening it, as fields of `Capabilities`.

        TierUnavailableError if it does not work.
        """
        facts: Callable[[], Awaitable[dict[str, Any]]] | None
        facts = getattr(import_module(self.module), "facts", None)
        return await facts() if facts else {}


_GPU = TypicalSpeeds(2e-3, 5e-5, 2e-12, 1e-10, 1e-11)
_SOFTWARE_GPU = TypicalSpeeds(2e-3, 2e-4, 1e-9, 1e-9, 1e-9)

# Best first.
TABLE: tuple[TierInfo, ...] = (
    TierInfo(
        "webgpu",
        "the GPU",
        "bascule.backend.webgpu.opening",
        _GPU,
        software=_SOFTWARE_GPU,
        is_async=True,
        is_gpu=True,
    ),
    TierInfo(
        "webgpu-limited",
        "the GPU, with WebGPU's default limits",
        "bascule.backend.webgpu.opening",
        _GPU,
        software=_SOFTWARE_GPU,
        is_async=True,
        is_gpu=True,
        better=BetterTier("webgpu", "webgpu works, on the same adapter in full"),
    ),
    TierInfo(
        "webnn",
        "the browser's neural network API",
        "bascule.backend.webnn.opening",
        TypicalSpeeds(1e-3, 5e-5, 3e-11, 1e-9, None),
        refuses=True,
        copies=4,  # Bascule's, the graph's, and its runtime's two while a graph is built
    ),
    TierInfo(
        "wasm",
        "the CPU, by WebAssembly",
        "bascule.backend.wasm.opening",
        TypicalSpeeds(1e-4, 3e-5, 2e-10, 2e-9, 2e-10),  # by wasmtime
        in_page=TypicalSpeeds(5e-5, 1e-5, 8e-11, 1e-9, 1e-10),
        anywhere=True,
    ),
    TierInfo(
        "cpu",
        "the CPU, by numpy",
        "bascule.backend.cpu",
        TypicalSpeeds(2e-5, 1e-5, 4e-11, 1e-9, 1e-9),
        in_page=TypicalSpeeds(1e-4, 5e-5, 1e-9, 2e-9, 2e-9),  # its numpy has no BLAS
        anywhere=True,
        better=BetterTier(
            "wasm",
            "wasm works, and a page's numpy, which would have to be fetched, is slower",
            in_page=True,
        ),
    ),
    TierInfo(
        "reference",
        "the CPU, by numpy in float64, to check other tiers with",
        "bascule.backend.float64",
        TypicalSpeeds(2e-5, 1e-5, 1e-10, 2e-9, 2e-9),
        anywhere=True,
        chosen=False,
    ),
)
_ROWS = {row.name: row for row in TABLE}
NAMES: tuple[Tier, ...] = tuple(row.name for row in TABLE)
TIERS: tuple[Tier, ...] = tuple(row.name for row in TABLE if row.chosen)
# Tiers that run WGSL, those that run every program, and those that do both: they also compute ops
# that have a numpy function and no program.
SHADER_TIERS: tuple[Tier, ...] = tuple(tier for tier in TIERS if _ROWS[tier].is_gpu)
HOST_TIERS: tuple[Tier, ...] = tuple(tier for tier in TIERS if _ROWS[tier].anywhere)
COMPUTE_TIERS: tuple[Tier, ...] = (*SHADER_TIERS, *HOST_TIERS)


def tier_info(tier: Tier) -> TierInfo:
    """Return the row of a tier."""
    return _ROWS[tier]


class BackendType(Enum):
    """Bascule's tiers, and aliases from other libraries.

    Each member's value is one of the tiers. The other names are aliases (the same members), so code
    that asks for them takes the intended branch:

        JAX, "jax"                 WEBGPU: a pass recorded once, compiled, run on the accelerator
        NUMBA, "numba"             WASM: loops compiled by LLVM to SIMD code for the CPU
        TORCH, "torch", "pytorch"  CPU: the array library as it is, no accelerator needed
        NUMPY, "numpy"             CPU

    None of those libraries is imported or needed. `BackendType("jax")` works as well.
    """

    WEBGPU = "webgpu"
    WEBGPU_LIMITED = "webgpu-limited"
    WEBNN = "webnn"
    WASM = "wasm"
    CPU = "cpu"
    JAX = "webgpu"
    NUMBA = "wasm"
    TORCH = "cpu"
    NUMPY = "cpu"

    @property
    def tier(self) -> Tier:
        """The tier of that name."""
        return self.value

    @property
    def is_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return tier_info(self.tier).is_gpu

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, its own first."""
        return tuple(name for name, member in BackendType.__members__.items() if member is self)

    @classmethod
    def _missing_(cls, value: object) -> BackendType | None:
        name = str(value).upper().replace("-", "_")
        return cls.__members__.get("TORCH" if name == "PYTORCH" else name)
