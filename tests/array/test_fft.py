"""Fourier transforms against numpy's in float64, on every tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array.errors import DTypeError, ShapeError

TINY = 3e-7  # relative to the largest number, an operation and a power of two


def near(pair: Any, expected: Any) -> None:
    result = np.asarray(pair.real) + 1j * np.asarray(pair.imag)
    assert result.shape == expected.shape
    scale = np.abs(expected).max(initial=1.0)
    assert np.abs(result - expected).max(initial=0.0) <= 8 * TINY * scale


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 32, 97, 100, 1024, 4099])
def test_every_length(tier: str, rng: np.random.Generator, n: int) -> None:
    z = rng.standard_normal((3, n)) + 1j * rng.standard_normal((3, n))
    pair = tuple(xp.asarray(part.astype(np.float32)) for part in (z.real, z.imag))
    z = np.asarray(pair[0]).astype(float) + 1j * np.asarray(pair[1])
    near(xp.fft.fft(pair), np.fft.fft(z))
    near(xp.fft.ifft(pair, norm="ortho"), np.fft.ifft(z, norm="ortho"))
    back = xp.fft.ifft(xp.fft.fft(pair))
    near(back, z)
    real = np.asarray(pair[0]).astype(float)
    half = xp.fft.rfft(pair[0])
    near(half, np.fft.rfft(real))
    near(xp.fft.ComplexPair(xp.fft.irfft(half, n=n), xp.zeros((3, n))), real + 0j)


def test_axes_lengths_and_norms(tier: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 5, 8)).astype(np.float32)
    array, wide = xp.asarray(x), x.astype(float)
    for axis in (0, 1, -1):
        for n in (3, 8, 9):
            near(xp.fft.fft(array, axis=axis, n=n), np.fft.fft(wide, axis=axis, n=n))
            near(xp.fft.rfft(array, axis=axis, n=n), np.fft.rfft(wide, axis=axis, n=n))
            result = xp.fft.irfft(array, axis=axis, n=n, norm="forward")
            near(
                xp.fft.ComplexPair(result, result * 0),
                np.fft.irfft(wide, axis=axis, n=n, norm="forward") + 0j,
            )
    near(xp.fft.fftn(array), np.fft.fftn(wide))
    near(xp.fft.ifftn(array, s=(4, 4), axes=(0, 2)), np.fft.ifftn(wide, s=(4, 4), axes=(0, 2)))
    near(xp.fft.fft(xp.permute_dims(array, (2, 0, 1))), np.fft.fft(wide.transpose(2, 0, 1)))
    near(xp.fft.fft(xp.zeros((0, 4))), np.fft.fft(np.zeros((0, 4))))


def real_near(found: xp.Array, expected: Any) -> None:
    near(xp.fft.ComplexPair(found, found * 0), expected + 0j)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 97, 1024])
def test_signals_that_mirror_themselves(tier: str, rng: np.random.Generator, n: int) -> None:
    real = rng.standard_normal((2, n)).astype(np.float32)
    array, wide = xp.asarray(real), real.astype(float)
    for norm in ("backward", "ortho", "forward"):
        half = xp.fft.ihfft(array, norm=norm)
        near(half, np.fft.ihfft(wide, norm=norm))
        real_near(xp.fft.hfft(half, n=n, norm=norm), wide)
    z = rng.standard_normal((2, n + 1)) + 1j * rng.standard_normal((2, n + 1))
    pair = tuple(xp.asarray(part.astype(np.float32)) for part in (z.real, z.imag))
    z = np.asarray(pair[0]).astype(float) + 1j * np.asarray(pair[1])
    real_near(xp.fft.hfft(pair), np.fft.hfft(z))
    real_near(xp.fft.hfft(pair, n=2 * n + 1, norm="ortho"), np.fft.hfft(z, 2 * n + 1, norm="ortho"))
    real_near(xp.fft.hfft(pair, axis=0, n=3), np.fft.hfft(z, axis=0, n=3))


def test_real_transforms_along_several_axes(tier: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 5, 7)).astype(np.float32)
    array, wide = xp.asarray(x), x.astype(float)
    half = xp.fft.rfftn(array)
    near(half, np.fft.rfftn(wide))
    real_near(xp.fft.irfftn(half, s=x.shape), wide)
    for options in (
        {"axes": (1,)},
        {"s": (4, 9)},
        {"s": (4, 3), "axes": (2, 0), "norm": "ortho"},
        {"axes": (-1, 0, 1), "norm": "forward"},
    ):
        along = {"axes": (1, 2), **options}  # numpy wants axes beside s
        near(xp.fft.rfftn(array, **options), np.fft.rfftn(wide, **along))
        real_near(xp.fft.irfftn(array, **options), np.fft.irfftn(wide, **along))


def test_frequencies_and_shifts(tier: str) -> None:
    for n in (1, 2, 7, 8):
        assert np.allclose(np.asarray(xp.fft.fftfreq(n, d=0.5)), np.fft.fftfreq(n, 0.5))
        assert np.allclose(np.asarray(xp.fft.rfftfreq(n, d=0.5)), np.fft.rfftfreq(n, 0.5))
        x = np.arange(2 * n, dtype=np.float32).reshape(2, n)
        for name in ("fftshift", "ifftshift"):
            ours, theirs = getattr(xp.fft, name), getattr(np.fft, name)
            assert np.array_equal(np.asarray(ours(xp.asarray(x))), theirs(x))
            assert np.array_equal(np.asarray(ours(xp.asarray(x), axes=1)), theirs(x, axes=1))


def test_what_cannot_be_transformed_is_said(tier: str) -> None:
    x = xp.ones((4,))
    with pytest.raises(DTypeError, match="float32 or float16"):
        xp.fft.fft(xp.asarray([1, 2]))
    with pytest.raises(ShapeError, match="one shape"):
        xp.fft.fft((x, xp.ones((3,))))
    with pytest.raises(ShapeError, match="backward, ortho, forward"):
        xp.fft.fft(x, norm="none")
    with pytest.raises(ShapeError, match="1 or more"):
        xp.fft.fft(x, n=0)
    with pytest.raises(ShapeError, match="1 or more"):
        xp.fft.irfft(xp.ones((1,)))
    with pytest.raises(ShapeError, match="a length an axis"):
        xp.fft.fftn(x, s=(2, 2), axes=(0,))
    with pytest.raises(DTypeError, match="float32 or float16"):
        xp.fft.fftfreq(4, dtype="int32")
    assert xp.fft.rfftfreq(4, dtype="float16").dtype == xp.float16
    with pytest.raises(DTypeError, match="real numbers"):
        xp.fft.rfft((x, x))  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="rfftn"):
        xp.fft.rfftn((x, x))  # type: ignore[arg-type]
    for function in (xp.fft.rfftn, xp.fft.irfftn):
        with pytest.raises(ShapeError, match="one axis or more"):
            function(x, axes=())
    with pytest.raises(ShapeError, match="norm"):
        xp.fft.hfft(x, norm="none")
