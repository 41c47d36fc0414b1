"""The rewrites of whole models: which there are, and how all programs of a model are fitted."""

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
from bascule.program.rewrites.rewrite import Limits, Rewrite, Taken, fit


def model_rewrites(cuts: Cuts | None = None) -> tuple[Rewrite, ...]:
    """Those that a device's limits may demand of a model, in the order in which they are made.

    With `cuts` weights are cut so; without, as each program alone needs it.
    """
    return (
        partial(chunked_embedding, cuts=cuts),
        partial(layer_decomposition, cuts=cuts),
        partitioned_kv_cache,
        head_partitioning,
        chunked_attention,
    )


@dataclass(frozen=True, slots=True)
class Fitting:
    """How the programs of a model are kept within a device's limits: all cut a weight alike.

    `taken` has the rewrites that were made of the programs it was made for.
    """

    limits: Limits = field(default_factory=Limits)
    cuts: Cuts = field(default_factory=dict[str, Cut])
    taken: tuple[Taken, ...] = ()

    def fit(self, program: Program) -> Program:
        """The program as the device can hold it; LimitError if it cannot be."""
        return self.fitted(program)[0]

    def able(self, programs: Iterable[Program]) -> list[Program]:
        """Those programs that the device can hold, fitted."""
        results: list[Program] = []
        for program in programs:
            with suppress(LimitError):
                results.append(self.fit(program))
        return results

    @property
    def text(self) -> str:
        """The strategies that were taken and the first reason of each, for people; may be empty."""
        first = {t.strategy: t for t in reversed(self.taken)}
        counts = {name: sum(t.strategy == name for t in self.taken) for name in first}
        rows = [
            f"{name} ({t.reason}{f'; {counts[name] - 1} more' if counts[name] > 1 else ''})"
            for name, t in sorted(first.items())
        ]
        return f"fallbacks taken: {', '.join(rows)}" if rows else ""

    def fitted(self, program: Program) -> tuple[Program, tuple[Taken, ...]]:
        """The same, and what was taken."""
        if self.limits == Limits():
            return program, ()
        cuts_of(program, self.limits)  # for the error where cutting cannot help
        return fit(program, self.limits, model_rewrites(self.cuts))


def fit_all(programs: Sequence[Program], limits: Limits) -> tuple[Fitting, list[Program]]:
    """How a model's programs are fitted, and those of them that can be, the first one above all.

    LimitError if the first one cannot be: it is the least, and has every parameter.
    """
    if limits == Limits():
        return Fitting(limits), list(programs)
    able: list[tuple[Program, Cuts]] = []
    for program in programs:
        try:
            able.append((program, cuts_of(program, limits)))
        except LimitError:
            if program is programs[0]:
                raise
    rule = Fitting(limits, merged(cuts for _, cuts in able))
    fitted = [rule.fitted(program) for program, _ in able]
    applied = dict.fromkeys(applied for _, some in fitted for applied in some)
    return Fitting(limits, rule.cuts, tuple(applied)), [program for program, _ in fitted]
