"""Which kernel to use for a call on this device: what was measured, and what does not compile.

Stored between runs under everything that could change the answer: the adapter with its limits and
features, the version of the driver or browser, and Bascule's own. A stored choice is used only if
the variant still exists and its shader is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from math import isfinite
from typing import Any

from bascule import __version__
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel
from bascule.base.entries import MemoryRemembered, Remembered
from bascule.errors import GpuError, ShaderError, WrongResultError
from bascule.program.ops import onto_of, operands_of
from bascule.program.ops.parts import PLACES
from bascule.program.program import Call, Dim, Value


def machine_key(adapter: AdapterInfo) -> str:
    """Return the key of this adapter under this browser or driver and this version of Bascule."""
    return f"{__version__} {adapter.identity}"


def signature(call: Call) -> str:
    """Return a text that is equal for calls on which kernels are equally fast: op, attributes,
    largest shapes.

    Parts that differ only in where they start have the same signature.
    """
    settings = [(name, value) for name, value in call.attributes if name not in PLACES]
    attributes = "".join(f" {name}={value}" for name, value in settings)
    over = onto_of(call)
    shapes = "".join(f" {_shape(o)}" if o and o is not over else " -" for o in call.operands)
    return f"{call.op}{attributes}{shapes}"


def _shape(value: Value) -> str:
    sizes = ",".join(f"{d.name}{d.limit}" if isinstance(d, Dim) else str(d) for d in value.shape)
    return f"[{sizes}]{'' if value.dtype == 'f32' else value.dtype}"


# The most failed variants that an error lists.
_MAX_LISTED = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """A candidate's measurement; `digest` identifies the shader."""

    digest: str
    ms: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """A signature's candidates by variant, and the chosen one."""

    chosen: str
    times: Mapping[str, Timing]


@dataclass(frozen=True, slots=True)
class Failure:
    """A shader that fails to compile here or gives wrong numbers; `messages` as in ShaderError."""

    variant: str
    label: str
    messages: tuple[tuple[int, str], ...]
    earlier: bool = False  # remembered from an earlier run
    wrong: bool = False  # it compiles, and gives wrong numbers


class Choices:
    """Implements `kernel.Ranking`. Without a store it knows what this process has measured."""

    def __init__(self, remembered: Remembered | None = None, key: str = "") -> None:
        self.remembered = remembered or MemoryRemembered()
        self._key = f"choices {key}"
        self._failed: dict[str, Failure] = {}
        self._tuned: dict[str, Tuned] = {}
        self._proven: set[str] = set()
        self._unsaved = False

    @classmethod
    async def open(cls, remembered: Remembered, adapter: AdapterInfo) -> Choices:
        """Read what is known of this adapter."""
        choices = cls(remembered, machine_key(adapter))
        entry = await remembered.get(choices._key) or {}
        choices._failed = dict(_checked(entry.get("failed"), _failure_of))
        choices._tuned = dict(_checked(entry.get("tuned"), _tuned_of))
        proven: Any = entry.get("proven")
        listed: list[Any] = proven if isinstance(proven, list) else []
        choices._proven = {key for key in listed if isinstance(key, str)}
        return choices

    @property
    def tuned(self) -> Mapping[str, Tuned]:
        """Choices by signature."""
        return self._tuned

    @property
    def failed(self) -> Mapping[str, Failure]:
        """Failures by digest."""
        return self._failed

    @property
    def proven(self) -> Set[str]:
        """Shaders that gave the right numbers here; see `proving`."""
        return self._proven

    def knows(self, call: Call) -> bool:
        return bool(self._failed) or signature(call) in self._tuned

    def first(self, call: Call, kernels: Sequence[Kernel]) -> Kernel:
        """See `Ranking.first`: the tuned one, else the first of `kernels` that has not failed."""
        tuned = self._tuned.get(signature(call))
        best = [k for k in kernels if tuned and _is_timed(k, tuned) and k.variant == tuned.chosen]
        alive = (k for k in [*best, *kernels] if k.digest not in self._failed)
        return next(alive, kernels[0])

    def is_tuned(self, call: Call, kernels: Sequence[Kernel]) -> bool:
        """Whether all of `kernels` have been measured for such a call, or failed."""
        tuned = self._tuned.get(signature(call))
        if tuned is None or tuned.chosen not in {k.variant for k in kernels}:
            return False
        return all(k.digest in self._failed or _is_timed(k, tuned) for k in kernels)

    def note_tuned(self, call: Call, chosen: Kernel, times: Sequence[tuple[Kernel, float]]) -> None:
        """Use `chosen` for such calls from now on; `times` in milliseconds."""
        measured = {k.variant: Timing(k.digest, ms) for k, ms in times}
        self._tuned[signature(call)] = Tuned(chosen.variant, measured)
        self._unsaved = True

    def note_failure(
        self, kernel: Kernel, messages: Sequence[tuple[int, str]], *, wrong: bool = False
    ) -> None:
        """Never use this shader again on this machine; `wrong`: it gave wrong numbers."""
        reported = tuple(messages)
        self._failed[kernel.digest] = Failure(kernel.variant, kernel.label, reported, wrong=wrong)
        self._unsaved = True

    def note_proven(self, keys: Iterable[str]) -> None:
        """Record shaders that need no further proof on this machine."""
        before = len(self._proven)
        self._proven.update(keys)
        self._unsaved |= len(self._proven) > before

    def give_up(self, call: Call, kernels: Sequence[Kernel]) -> GpuError | None:
        """Return the error if all of a call's candidates have failed; None otherwise.

        Those that did not compile are forgotten then: with nothing else to use, the next attempt
        must try again, and the cause (a device short of memory) may have passed. Wrong numbers are
        not forgotten.
        """
        if any(k.digest not in self._failed for k in kernels):
            return None
        failures = {k.digest: self._failed[k.digest] for k in kernels}
        for digest in [digest for digest, failure in failures.items() if not failure.wrong]:
            del self._failed[digest]
            self._unsaved = True
        wrong = [f for f in failures.values() if f.wrong]
        if not wrong:
            first = next(iter(failures.values()))
            return ShaderError(first.label, first.messages)
        reasons = "; ".join(f"{f.variant}: {f.messages[0][1]}" for f in wrong[:_MAX_LISTED])
        return WrongResultError(signature(call), reasons, f16_cache=_has_f16_cache(call))

    async def save(self) -> None:
        """Store what was measured since the last save."""
        if not self._unsaved:
            return
        self._unsaved = False
        failed = {
            digest: {
                "variant": f.variant,
                "label": f.label,
                "messages": [*map(list, f.messages)],
                "wrong": f.wrong,
            }
            for digest, f in self._failed.items()
        }
        tuned = {
            name: {
                "chosen": t.chosen,
                "times": {v: {"digest": one.digest, "ms": one.ms} for v, one in t.times.items()},
            }
            for name, t in self._tuned.items()
        }
        record = {"failed": failed, "tuned": tuned, "proven": sorted(self._proven)}
        await self.remembered.put(self._key, record)


def _has_f16_cache(call: Call) -> bool:
    """Whether it uses a float16 cache, which float32 may replace."""
    states = (value for each, value in operands_of(call) if each.role == "state")
    return any(value.dtype == "f16" for value in states)


def _is_timed(kernel: Kernel, tuned: Tuned) -> bool:
    timing = tuned.times.get(kernel.variant)
    return timing is not None and timing.digest == kernel.digest


def _checked(record: Any, read: Any) -> list[tuple[str, Any]]:
    """Return the valid entries of a mapping that was read back."""
    if not isinstance(record, dict):
        return []
    items = [(name, read(value)) for name, value in record.items() if isinstance(value, dict)]
    return [(name, value) for name, value in items if value is not None]


def _failure_of(fields: dict[str, Any]) -> Failure | None:
    match fields:
        case {"variant": str(variant), "label": str(label), "messages": [*messages]}:
            lines = [(m[0], m[1]) for m in messages if _is_message(m)]
            wrong = fields.get("wrong") is True
            if wrong and not lines:
                return None
            return Failure(variant, label, tuple(lines), earlier=True, wrong=wrong)
        case _:
            return None


def _is_message(value: Any) -> bool:
    match value:
        case [int(), str()]:
            return True
        case _:
            return False


def _tuned_of(fields: dict[str, Any]) -> Tuned | None:
    match fields:
        case {"chosen": str(chosen), "times": dict(times)}:
            result = dict(_checked(times, _timing_of))
            return Tuned(chosen, result) if chosen in result else None
        case _:
            return None


def _timing_of(fields: dict[str, Any]) -> Timing | None:
    match fields:
        case {"digest": str(digest), "ms": int(ms) | float(ms)} if isfinite(ms) and ms >= 0:
            return Timing(digest, float(ms))
        case _:
            return None
