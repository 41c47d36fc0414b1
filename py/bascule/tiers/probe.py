"""A real dispatch whose result is known: the only proof that a tier computes."""

from __future__ import annotations

from bascule.arrays import np
from bascule.backend.base import Backend
from bascule.errors import TierUnavailableError
from bascule.program.compile import freeze
from bascule.program.graph import Graph

_N = 77  # past one workgroup, and no multiple of anything


async def probe_dispatch(backend: Backend) -> None:
    """Add two vectors of small whole numbers, whose sums are exact in float32.

    TierUnavailableError when the sums are wrong; what the device refuses is raised as it is.
    """
    graph = Graph("probe")
    x = graph.input("x", (_N,))
    y = graph.input("y", (_N,))
    graph.output(graph.call("add", x, y))
    store = backend.store(())
    executable = await backend.prepare(freeze(graph), store)
    try:
        a = np.arange(_N, dtype=np.float32)
        found = await executable.run({}, {"x": a, "y": 3 * a + 1})
        if not np.array_equal(next(iter(found.values())), 4 * a + 1):
            raise TierUnavailableError(
                backend.tier, f"{backend.device_name} gave wrong sums in a test dispatch"
            )
    finally:
        executable.close()
        store.close()
