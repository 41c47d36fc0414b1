"""Streamed weights: stages that are read again in each pass, and what the tiers' stores share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from bascule.base.turns import CrossLoopLock
from bascule.errors import InputError
from bascule.program.program import Parameter, Program
from bascule.program.stages import Stage, stages_of, streamed_nbytes

# Why a tier that builds one graph of everything rejects them.
NO_STREAMING = "its graph holds all weights, and stream_weights keeps them out of memory"


# Copies parameters from a model's files to the byte offsets of a target of the store; its errors
# are those of `weights.source.Source.reread`.
ReadStage = Callable[[Mapping[str, int], int], Awaitable[None]]


class Streaming:
    """The stages of a store's passes, and how they are read.

    Passes share the store's slots: each holds `turn` from its first stage to its last.
    """

    def __init__(self, parameters: Sequence[Parameter], slot_nbytes: int) -> None:
        self.slot_nbytes = slot_nbytes
        self.names = frozenset(streamed_nbytes(parameters))
        self.turn = CrossLoopLock()
        self._read: ReadStage | None = None

    def stages(self, program: Program) -> tuple[Stage, ...]:
        """Return the stages of a program; LimitError as `stages_of`."""
        return stages_of(program, self.slot_nbytes)

    def read_by(self, read: ReadStage) -> None:
        """Set the function that reads stages."""
        self._read = read

    async def read(self, stage: Stage, target: int) -> None:
        """Copy the parameters of a stage to their offsets in a target."""
        if self._read is None:
            raise InputError("streamed weights", "a load that has read the files' headers", "none")
        if stage.offsets:
            await self._read(stage.offsets, target)
