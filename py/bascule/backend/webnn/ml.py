"""The waist between the WebNN tier and its drivers: a recipe in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bascule.backend.webnn.recipe import Array, Recipe


class Ml(Protocol):
    """A context of WebNN. Graphs are numbers; `name` is the device, for people."""

    name: str

    @property
    def lost(self) -> str:
        """Why the context can no longer be used; empty while it can."""
        ...

    @property
    def n_graphs(self) -> int:
        """Graphs that are alive."""
        ...

    async def build(self, recipe: Recipe, parameters: Mapping[str, Array]) -> int:
        """Make a graph, which has copied the parameters by the time that this returns."""
        ...

    async def run(self, graph: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute its outputs; inputs are shaped as the recipe says."""
        ...

    def free(self, graph: int) -> None:
        """Let go of a graph and of its constants."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
