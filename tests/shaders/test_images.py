"""patches."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.graph import Graph
from tests.shaders.harness import check_op, normal

# Height and width of image, window, stride and padding.
CASES = [
    ((1, 1), (1, 1), (1, 1), (0, 0)),
    ((5, 7), (5, 7), (1, 1), (0, 0)),
    ((9, 8), (4, 4), (4, 4), (0, 0)),
    ((9, 8), (3, 2), (2, 1), (1, 0)),
    ((6, 5), (3, 3), (1, 2), (2, 3)),
    ((4, 11), (2, 3), (3, 5), (0, 1)),  # strides past the window
]


def window(case: tuple[tuple[int, int], ...]) -> dict[str, int]:
    _, kernel, stride, pad = case
    names = ("k_height", "k_width", "stride_y", "stride_x", "pad_y", "pad_x")
    return dict(zip(names, (*kernel, *stride, *pad), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
async def test_patches(
    gpu: NativeGpu, rng: np.random.Generator, case: tuple[tuple[int, int], ...], channels: int
) -> None:
    x = normal(rng, 2, *case[0], channels)
    given = window(case)
    result = await check_op(gpu, "software", "patches", [x], tolerance=0, first=0, lines=0, **given)
    (_, (k_height, k_width), (stride_y, stride_x), (pad_y, pad_x)) = case
    framed = np.pad(x, ((0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)))
    expected = [
        image[top : top + k_height, left : left + k_width].ravel()
        for image in framed
        for top in range(0, framed.shape[1] - k_height + 1, stride_y)
        for left in range(0, framed.shape[2] - k_width + 1, stride_x)
    ]
    np.testing.assert_array_equal(result, expected)


async def test_patches_of_some_lines(gpu: NativeGpu, rng: np.random.Generator) -> None:
    x, given = normal(rng, 2, 9, 8, 3), window(CASES[3])
    whole = FUNCTIONS["patches"](x, first=0, lines=0, **given)
    result = await check_op(gpu, "software", "patches", [x], tolerance=0, first=3, lines=4, **given)
    np.testing.assert_array_equal(result, whole[3 * 7 : 7 * 7])


@pytest.mark.parametrize(
    "change", [{"stride_x": 0}, {"k_height": 99}, {"pad_y": -1}, {"first": 9, "lines": 9}]
)
def test_windows_without_a_place_are_refused(change: dict[str, int]) -> None:
    graph = Graph("refused")
    x = graph.input("x", (1, 9, 8, 3))
    with pytest.raises(InputError, match="op patches"):
        graph.call("patches", x, **{**window(CASES[3]), "first": 0, "lines": 0, **change})
