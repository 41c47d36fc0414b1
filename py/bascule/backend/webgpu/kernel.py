"""A kernel: one shader made ready for one call, and the interface that ranks its candidates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from bascule.backend.webgpu.link import Linked, link
from bascule.program.ops import onto_of
from bascule.program.program import Call, Sizes, Value

Workgroups = tuple[int, int, int]
Numbers = Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One call on one adapter. Kernels with equal `key`s share a pipeline.

    `variant` names it among the candidates of its call, the same way on every machine.
    """

    name: str
    variant: str
    linked: Linked
    constants: Mapping[str, float]
    key: tuple[object, ...]
    operands: tuple[Value, ...]
    _numbers: Callable[[Sizes], Numbers]
    _launch: Callable[[], Workgroups]

    @property
    def label(self) -> str:
        """The shader file, for errors."""
        return f"{self.name}.wgsl"

    @property
    def wgsl(self) -> str:
        """The linked text."""
        return self.linked.wgsl

    @property
    def bindings(self) -> str:
        """A letter per binding, as `Gpu.pipeline` takes them."""
        return self.linked.bindings

    @property
    def digest(self) -> str:
        """Identifies the shader: its text, constants and bindings."""
        return _digest(self.wgsl, tuple(sorted(self.constants.items())), self.bindings)

    def params(self, sizes: Sizes) -> bytes:
        """Return the uniform block for the actual sizes of a run."""
        return self.linked.pack(self._numbers(sizes))

    def launch(self) -> Workgroups:
        """Return workgroup counts at the largest sizes; a kernel ends early past the actual."""
        return self._launch()


# Functions that make a kernel for one call, the default first.
Variants = Sequence[Callable[[], Kernel]]


class Ranking(Protocol):
    """What is known of the candidates on this device; see `choices.Choices`."""

    def knows(self, call: Call) -> bool:
        """Whether anything is known that could replace the default; cheap."""
        ...

    def first(self, call: Call, kernels: Sequence[Kernel]) -> Kernel:
        """Return the kernel to use."""
        ...


def make_kernel(
    call: Call,
    name: str,
    numbers: Callable[[Sizes], Numbers],
    launch: Callable[[], Workgroups],
    *,
    variant: str = "",
    parts: tuple[str, ...] = (),
    constants: Mapping[str, float] | None = None,
    consts: tuple[tuple[str, int], ...] = (),
    enables: str = "",
) -> Kernel:
    """Make the kernel shaders/<name>.wgsl with these parts for `call`; `variant` completes its
    name.

    `numbers` gives the fields of its Params, `launch` its workgroups.
    """
    constants = constants or {}
    # An operand whose memory the result takes over is bound as the result.
    over = onto_of(call)
    operands = (*(o for o in call.operands if o is not None and o is not over), call.result)
    key = (name, parts, consts, enables, tuple(sorted(constants.items())))
    linked = link(name, parts, consts, enables)
    label = f"{name} {variant}".strip()
    return Kernel(name, label, linked, constants, key, operands, numbers, launch)


@cache
def _digest(wgsl: str, constants: tuple[tuple[str, float], ...], bindings: str) -> str:
    return hashlib.sha256(json.dumps([wgsl, constants, bindings]).encode()).hexdigest()[:32]
