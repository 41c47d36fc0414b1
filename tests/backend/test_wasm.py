"""Each WebAssembly kernel against float64, at the edges of its tiles."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.wasm.kernels_native import NativeKernels


@pytest.mark.parametrize("n", [1, 3, 4, 5, 1023])
def test_multiply(n: int, kernels: NativeKernels, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, n)).astype(np.float32)
    room = kernels.empty((n + 4,))
    room[:] = np.nan
    kernels.call("multiply", room, a, b, n)
    np.testing.assert_array_equal(room[:n], a * b)
    assert np.isnan(room[n:]).all()
