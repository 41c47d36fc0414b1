"""The interface of rewrites, their limits, and how they compose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Literal, Protocol

from bascule.errors import InputError
from bascule.program.memory import plan
from bascule.program.program import Call, Parameter, Program, Value

StrategyName = Literal[
    "layer_decomposition",
    "chunked_attention",
    "partitioned_kv_cache",
    "head_partitioning",
    "progressive_quantization",
    "simplified_shader",
    "chunked_embedding",
    "tiled_extraction",
]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device or a budget allows a program; no bound by default.

    `binding_nbytes` bounds every tensor that a call reads or writes (it is bound whole),
    `memory_nbytes` the intermediate values together, `dispatch_work` the multiply-adds of one call,
    `weights_nbytes` the parameters together, `part_nbytes` each weight and table that can be cut.
    """

    binding_nbytes: float = inf
    memory_nbytes: float = inf
    dispatch_work: float = inf
    weights_nbytes: float = inf
    part_nbytes: float = inf

    def __post_init__(self) -> None:
        """InputError for a limit that nothing can keep."""
        for field in fields(self):
            bound = getattr(self, field.name)
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
                raise InputError(f"limit {field.name}", "a number above 0", repr(bound))


@dataclass(frozen=True, slots=True)
class AppliedRewrite:
    """An applied rewrite: the limit that required it, and the number of parts."""

    strategy: StrategyName
    reason: str
    parts: int


class Rewrite(Protocol):
    """Rewrites each call that exceeds a limit, and leaves the others alone."""

    def __call__(
        self, program: Program, limits: Limits
    ) -> tuple[Program, Sequence[AppliedRewrite]]:
        """Return the program itself, with nothing applied, if everything is within the limits."""
        ...


def fit(
    program: Program, limits: Limits, rewrites: Iterable[Rewrite]
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """Apply the rewrites one after the other."""
    applied: list[AppliedRewrite] = []
    for rewrite in rewrites:
        program, more = rewrite(program, limits)
        applied += more
    return program, tuple(applied)


def rebuilt(
    program: Program,
    calls: Sequence[Call],
    *,
    parameters: Sequence[Parameter] | None = None,
    states: Sequence[Value] | None = None,
) -> Program:
    """Return the program with other calls and a new memory plan; its outputs keep their names."""
    memory = plan(calls, program.outputs)
    return replace(
        program,
        calls=tuple(calls),
        parameters=program.parameters if parameters is None else tuple(parameters),
        states=program.states if states is None else tuple(states),
        slots=memory.slots,
        slot_nbytes=memory.slot_nbytes,
    )
