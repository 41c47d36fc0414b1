"""What bench/selection.py runs, natively and in the page's Pyodide: it uses the package alone."""

from __future__ import annotations

import timeit

from bascule import IntelligentBackendSelector, WorkloadCharacteristics, select_optimal_backend
from bascule.compat.selector import shared_selector


class Nothing:
    def call(self, first: object, second: object = None) -> object:
        return first


async def measure(rounds: int) -> dict[str, float]:
    """Microseconds by name, the best of `rounds`."""
    selector = await IntelligentBackendSelector(enable_learning=True).ready()
    await shared_selector().ready()
    workload = WorkloadCharacteristics("matmul", 10**6, (1000, 1000))
    chosen = selector.select_backend(workload)
    for _ in range(20):
        selector.note(chosen, "matmul", workload, 1e-3)
    names = {
        "nothing": Nothing(),
        "selector": selector,
        "workload": workload,
        "Workload": WorkloadCharacteristics,
        "optimal": select_optimal_backend,
    }
    rows = {
        "a method call that does nothing": "nothing.call(workload)",
        "a selection, learned and cached": "selector.select_backend(workload)",
        "a workload made": "Workload('matmul', 1000000, (1000, 1000))",
        "both": "selector.select_backend(Workload('matmul', 1000000, (1000, 1000)))",
        "select_optimal_backend": "optimal('matmul', (1000, 1000))",
    }
    n = 5000
    return {
        result: 1e6 * min(timeit.repeat(code, globals=names, number=n, repeat=rounds)) / n
        for result, code in rows.items()
    }
