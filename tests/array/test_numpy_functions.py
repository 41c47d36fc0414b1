"""numpy's functions on our arrays: numpy's numbers, and results that stay on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bascule.array as xp

Function = Callable[[Any, Any], Any]
X = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)
SQUARE = (X @ X.T + 4 * np.eye(4, dtype=np.float32)).astype(np.float32)
FUNCTIONS: list[Function] = [
    lambda x, s: np.sum(x),
    lambda x, s: np.sum(x, axis=0, keepdims=True),
    lambda x, s: np.sum(x, 1),
    lambda x, s: np.sum(x, None, None, None, True),
    lambda x, s: np.mean(x, axis=(0, 1)),
    lambda x, s: np.std(x, axis=0, ddof=1),
    lambda x, s: np.max(x, axis=1) - np.amin(x, 1),
    lambda x, s: np.argmax(x, axis=1),
    lambda x, s: np.any(x > 1, axis=0) | np.all(x < 1, axis=0),
    lambda x, s: np.cumsum(x),
    lambda x, s: np.cumsum(x, axis=1),
    lambda x, s: np.concatenate([x, X, x], axis=1),
    lambda x, s: np.concatenate((X, x)),
    lambda x, s: np.stack([x, x * 2], axis=2),
    lambda x, s: np.where(x > 0, x, 0.0),
    lambda x, s: np.where(x > 0, X, -x),
    lambda x, s: np.where(x > 0)[1],
    lambda x, s: np.clip(x, -0.5, 0.5),
    lambda x, s: np.clip(x, a_min=None, a_max=0.25),
    lambda x, s: np.reshape(x, (3, 8)) + np.reshape(x, -1)[0],
    lambda x, s: np.transpose(x) @ np.swapaxes(np.ravel(x).reshape(4, 6) if x is X else x, 0, 0),
    lambda x, s: np.flip(np.roll(x, 2, axis=1), axis=0),
    lambda x, s: np.repeat(np.tile(x, (2, 1)), 2, axis=0),
    lambda x, s: np.expand_dims(x, 1) + np.moveaxis(np.expand_dims(x, 2), 2, 1),
    lambda x, s: np.sort(x, axis=0) + np.take(x, np.array([0, 0, 1, 2], np.int32), axis=0),
    lambda x, s: np.dot(x, np.transpose(x)),
    lambda x, s: np.tensordot(x, X, axes=([0, 1], [0, 1])),
    lambda x, s: np.outer(x[0], x[1]),
    lambda x, s: np.linalg.norm(x),
    lambda x, s: np.linalg.norm(x, axis=1),
    lambda x, s: np.linalg.solve(s, x) + np.linalg.det(s),
    lambda x, s: np.linalg.cholesky(np.linalg.inv(s)),
    lambda x, s: np.zeros_like(x) + np.full_like(x, 2.5),
    lambda x, s: np.tril(x, -1) + np.diff(x, axis=1)[:, :1],
    lambda x, s: np.sin(x) + np.arctan2(x, X) - np.power(np.abs(x), 0.5),
    lambda x, s: X + x,
    lambda x, s: x - X,
    lambda x, s: np.float32(3) * x / np.float64(2),
    lambda x, s: (x == X) & (x <= X),
    lambda x, s: X @ np.transpose(x),
    lambda x, s: np.rint(x * 3) + np.round(x),
]


@pytest.mark.parametrize("index", range(len(FUNCTIONS)))
async def test_numpy_s_functions(tier: str, index: int) -> None:
    function = FUNCTIONS[index]
    result = function(xp.asarray(X), xp.asarray(SQUARE))
    expected = np.asarray(function(X, SQUARE))
    assert isinstance(result, xp.Array)
    assert str(result.device) == tier
    assert result.shape == expected.shape
    assert np.allclose(await result.numpy(), expected, rtol=2e-4, atol=1e-5)


async def test_what_gives_no_array(tier: str) -> None:
    x = xp.asarray(X)
    assert np.shape(x) == (4, 6)
    assert np.size(x) == 24
    assert np.ndim(x) == 2
    assert np.array_equal(x, X)
    assert not np.allclose(X, x + 1)


@pytest.mark.parametrize(
    ("function", "name", "found"),
    [
        (lambda x: np.kron(x, x), "np.kron", "none"),
        (lambda x: np.fft.fft(x), "np.fft.fft", "none"),  # it gives complex numbers
        (lambda x: np.sum(x, initial=1.0), "np.sum", "initial"),
        (lambda x: np.sum(x, out=np.zeros(())), "np.sum", "ndarray"),
        (lambda x: np.sort(x, order="f"), "np.sort", "order"),
        (lambda x: np.spacing(x), "np.spacing", "none"),
        (lambda x: np.add.reduce(x), "np.add.reduce", "none"),
        (lambda x: np.add(x, x, where=X > 0), "np.add", "where"),
        (lambda x: x + X.astype(np.float64), "asarray", "float64"),
    ],
)
def test_what_is_lacking_is_a_type_error(
    function: Callable[[Any], Any], name: str, found: str
) -> None:
    xp.set_default_device("cpu")
    with pytest.raises(TypeError) as caught:
        function(xp.asarray(X))
    assert name in str(caught.value) or name == "asarray"
    assert found in str(caught.value)
    assert "x.numpy()" in str(caught.value) or name == "asarray"


def test_dlpack(tier: str) -> None:
    """A capsule of the CPU: a copy, which numpy may write to."""
    given = xp.asarray(X)
    computed = given * 2 + 1
    assert computed.__dlpack_device__() == (1, 0)
    copied = np.from_dlpack(computed)
    assert np.array_equal(copied, X * 2 + 1)
    assert np.array_equal(xp.from_dlpack(copied), copied)
    again = np.from_dlpack(given)
    np.from_dlpack(given)[:] = 5
    assert np.array_equal(again, X)
    for refused in ({"copy": False}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            computed.__dlpack__(**refused)
