"""Generated kernels of arrays on Chromium's compiler, and its adapter without a GPU."""

from __future__ import annotations

import warnings

import numpy as np

import bascule.array as xp
from bascule.array.place import ArrayDevice
from bascule.array.rows import ROWS
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.array.test_elementwise import EDGES, SAME, cases, check, expected_of
from tests.array.test_work import every_text


async def test_they_compile_on_tint(tint_alone: NativeGpu) -> None:
    for wgsl, bindings, label in every_text():
        await tint_alone.pipeline(wgsl, {"WORKGROUP": 64}, bindings, label)


async def test_floats_come_out_right_on_swiftshader(
    tint: NativeGpu, rng: np.random.Generator
) -> None:
    """Above all NaN and infinity, of which a compiler may assume that there are none."""
    device = ArrayDevice("webgpu", WebGpuBackend(tint))
    edges = np.array(EDGES, np.float32)
    first = np.concatenate([np.repeat(edges, len(edges)), rng.standard_normal(200) * 10])
    second = np.concatenate([np.tile(edges, len(edges)), rng.standard_normal(200) * 10])
    pair = [each.astype(np.float32) for each in (first, second)]
    for name in sorted({name for name, dtype in cases() if dtype == "float32"}):
        operands = pair[: ROWS[name].arity]
        arrays = [xp.asarray(each, device=device) for each in operands]
        result = await getattr(xp, name)(*arrays).numpy()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            wide = operands if name in SAME else [o.astype(np.float64) for o in operands]
            expected = expected_of(name, wide)
        check(name, "float32", result, expected, operands)
    x = xp.asarray(edges, device=device)
    assert np.isnan(await xp.max(x).numpy())
    assert int(await xp.argmin(x).numpy()) == EDGES.index(next(e for e in EDGES if e != e))
    assert np.array_equal(await xp.sort(x).numpy(), np.sort(edges), equal_nan=True)
    for n in (32, 21):  # both radices, and Bluestein's
        samples = rng.standard_normal((2, n)).astype(np.float32)
        result = xp.fft.fft(xp.asarray(samples, device=device))
        parts = await result.real.numpy() + 1j * await result.imag.numpy()
        assert np.allclose(parts, np.fft.fft(samples.astype(np.float64)), atol=2e-5)
