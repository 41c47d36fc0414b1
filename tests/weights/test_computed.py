"""Parameters that no file has: zeros, and the angles of rotary positions."""

from __future__ import annotations

import numpy as np

from bascule.backend.cpu import ReferenceBackend
from bascule.program.graph import Graph
from bascule.program.program import Computed
from bascule.weights.computed import computed_numbers, write_computed


def test_angles_are_those_of_float64() -> None:
    result = np.array(computed_numbers(Computed(160_000.0), (8192, 64)), np.float64)
    pairs = 160_000.0 ** (-np.arange(0, 64, 2) / 64)
    angles = np.arange(8192)[:, None] * pairs
    expected = np.concatenate((np.cos(angles), np.sin(angles)), axis=1)
    assert np.abs(result.reshape(8192, 64) - expected).max() < 1e-7


def test_they_are_written_and_the_others_are_read() -> None:
    graph = Graph("g")
    graph.parameter("zeros", (5,), computed=Computed())
    graph.parameter("angles", (3, 2), computed=Computed(10.0))
    graph.parameter("weight", (2, 2))
    parameters = list(graph.parameters.values())
    store = ReferenceBackend().store(parameters)
    store.write(store.targets["zeros"], 0, np.ones(5, np.float32))
    rest = write_computed(parameters, store)
    assert [parameter.name for parameter in rest] == ["weight"]
    assert not np.any(store.arrays["zeros"])
    sines = store.arrays["angles"].reshape(3, 2)[:, 1]
    np.testing.assert_allclose(sines, np.sin([0, 1, 2]), atol=1e-7)
