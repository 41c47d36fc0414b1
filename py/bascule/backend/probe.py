"""A dispatch with a known result: the proof that a tier computes."""

from __future__ import annotations

from array import array
from math import nan

from bascule.backend.base import Backend
from bascule.errors import TierUnavailableError
from bascule.program.compile import freeze
from bascule.program.graph import Graph

_N = 77  # past one workgroup, and no multiple of anything


async def probe_dispatch(backend: Backend) -> None:
    """Add two vectors of small integers, whose sums are exact in float32.

    TierUnavailableError if the sums are wrong; other errors are passed on.
    """
    graph = Graph("probe")
    x = graph.input("x", (_N,))
    y = graph.input("y", (_N,))
    graph.output(graph.call("add", x, y))
    store = backend.store(())
    executable = await backend.prepare(freeze(graph), store)
    try:
        numbers = range(_N)
        x, y = array("f", numbers), array("f", [3 * n + 1 for n in numbers])
        sums = array("f", [nan] * _N)
        await executable.run({}, {"x": memoryview(x), "y": memoryview(y)}, [sums])
        if list(sums) != [4 * n + 1 for n in numbers]:
            raise TierUnavailableError(
                backend.tier, f"{backend.device_name} gave wrong sums in a test dispatch"
            )
    finally:
        executable.close()
        store.close()
