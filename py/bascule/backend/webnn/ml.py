"""The waist between the WebNN tier and its drivers: a recipe in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bascule.backend.webnn.recipe import Array, Recipe


class Ml(Protocol):
    """A WebNN context. Graphs are integers; `name` is the device, for people."""

    name: str

    @property
    def lost(self) -> str:
        """Why the context can no longer be used; empty while it can."""
        ...

    @property
    def n_graphs(self) -> int:
        """The number of live graphs."""
        ...

    async def build(self, recipe: Recipe, parameters: Mapping[str, Array]) -> int:
        """Build a graph; it has copied the parameters when this returns."""
        ...

    async def run(self, graph: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute its outputs; inputs have the recipe's shapes."""
        ...

    def free(self, graph: int) -> None:
        """Free a graph and its constants."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...
