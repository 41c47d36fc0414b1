"""The rewrites of whole models, and how all programs of a model are fitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from bascule.errors import LimitError
from bascule.program.program import Program
from bascule.program.rewrites.cuts import Cut, Cuts, cuts_of, merged
from bascule.program.rewrites.embeddings import chunked_embedding
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.layers import layer_decomposition
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, Rewrite, fit


def model_rewrites(cuts: Cuts | None = None) -> tuple[Rewrite, ...]:
    """Return the rewrites that a device's limits may require of a model, in order.

    With `cuts` weights are cut accordingly; without, as each program alone needs.
    """
    return (
        partial(chunked_embedding, cuts=cuts),
        partial(layer_decomposition, cuts=cuts),
        partitioned_kv_cache,
        head_partitioning,
        chunked_attention,
    )


@dataclass(frozen=True, slots=True)
class LimitFitter:
    """How the programs of a model are kept within a device's limits: all cut a weight alike.

    `applied` has the rewrites that were applied to the programs it was made for.
    """

    limits: Limits = field(default_factory=Limits)
    cuts: Cuts = field(default_factory=dict[str, Cut])
    applied: tuple[AppliedRewrite, ...] = ()

    def fit(self, program: Program) -> Program:
        """Fit a program to the device; LimitError if it cannot be."""
        return self.fitted(program)[0]

    def fit_possible(self, programs: Iterable[Program]) -> list[Program]:
        """Return those programs that the device can hold, fitted."""
        results: list[Program] = []
        for program in programs:
            with suppress(LimitError):
                results.append(self.fit(program))
        return results

    @property
    def text(self) -> str:
        """The applied strategies and the first reason of each, for people; may be empty."""
        first = {t.strategy: t for t in reversed(self.applied)}
        counts = {name: sum(t.strategy == name for t in self.applied) for name in first}
        rows = [
            f"{name} ({t.reason}{f'; {counts[name] - 1} more' if counts[name] > 1 else ''})"
            for name, t in sorted(first.items())
        ]
        return f"fallbacks taken: {', '.join(rows)}" if rows else ""

    def fitted(self, program: Program) -> tuple[Program, tuple[AppliedRewrite, ...]]:
        """Fit a program; also return what was applied."""
        if self.limits == Limits():
            return program, ()
        cuts_of(program, self.limits)  # for the error where cutting cannot help
        return fit(program, self.limits, model_rewrites(self.cuts))


def fit_all(programs: Sequence[Program], limits: Limits) -> tuple[LimitFitter, list[Program]]:
    """Fit a model's programs; return how, and those that can be fitted, including the first.

    LimitError if the first cannot be: it is the smallest, and has every parameter.
    """
    if limits == Limits():
        return LimitFitter(limits), list(programs)
    able: list[tuple[Program, Cuts]] = []
    for program in programs:
        try:
            able.append((program, cuts_of(program, limits)))
        except LimitError:
            if program is programs[0]:
                raise
    rule = LimitFitter(limits, merged(cuts for _, cuts in able))
    fitted = [rule.fitted(program) for program, _ in able]
    applied = dict.fromkeys(applied for _, some in fitted for applied in some)
    return LimitFitter(limits, rule.cuts, tuple(applied)), [program for program, _ in fitted]
