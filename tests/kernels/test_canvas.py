"""Canvas: what it draws is what numpy makes of the image, on every tier. e2e/test_canvas_page.py
has canvases of pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError

SIZES = [(1, 1), (63, 5), (64, 64), (65, 9), (300, 17)]


def expected_of(image: np.ndarray) -> np.ndarray:
    """Red, green and blue of a float image, by float64."""
    shades = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.rint(255 * np.clip(shades, 0, 1)).astype(np.uint8)
    if levels.ndim == 2:
        return np.repeat(levels[:, :, None], 3, axis=2)
    return levels[:, :, :3]


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_images_become_pixels(tier: str, rng: np.random.Generator) -> None:
    async with await bascule.open_device(tier) as device:
        for width, height in SIZES:
            canvas = device.canvas(width, height)
            for channels in ((), (3,), (4,)):
                image = rng.uniform(-0.5, 1.5, (height, width, *channels)).astype(np.float32)
                image.flat[:: max(1, image.size // 3)] = [np.nan, np.inf, -np.inf, 0.5][
                    rng.integers(4)
                ]
                for given in (image, await device.buffer(image)):
                    await canvas.draw(given)
                    result = await canvas.pixels()
                    assert result.dtype == np.uint8
                    # A rounding between two levels may differ by one: 255 x is a float32 there.
                    off = result.astype(int) - expected_of(image)
                    assert np.abs(off).max() <= 1
                    assert (off != 0).mean() < 0.01 or off.size < 300
            words = rng.integers(0, 1 << 32, (height, width), dtype=np.uint32)
            await canvas.draw(await device.buffer(words))
            colours = words.view(np.uint8).reshape(height, width, 4)[:, :, :3]
            np.testing.assert_array_equal(await canvas.pixels(), colours)
            assert not canvas.way


async def test_a_canvas_draws_in_the_memory_of_one_picture(rng: np.random.Generator) -> None:
    async with await bascule.open_device("webgpu") as device:
        canvas, image = device.canvas(100, 50), await device.buffer(np.zeros((50, 100), np.float32))
        await canvas.draw(image)
        held = device.memory().now_nbytes
        for _ in range(20):
            await canvas.draw(image)
        assert device.memory().now_nbytes == held
        del canvas
        assert device.memory().by_kind["buffers"] == image.nbytes


async def test_what_a_canvas_refuses(rng: np.random.Generator) -> None:
    device = await bascule.open_device("cpu")
    canvas = device.canvas(4, 3)
    with pytest.raises(InputError, match="was drawn"):
        await canvas.pixels()
    refused: list[Any] = [
        np.zeros((4, 3), np.float32),
        np.zeros((3, 4, 2), np.float32),
        np.zeros((3, 4), np.float64),
        np.zeros((3, 4, 3), np.uint32),
        [[0.0]],
        None,
        await device.buffer(np.zeros(12, np.float32)),
    ]
    for image in refused:
        with pytest.raises(InputError, match=r"3 rows of 4 pixels"):
            await canvas.draw(image)
    for size in ((0, 1), (1, 0), (8193, 1), (1.5, 1), (None, 1)):
        with pytest.raises(InputError, match=r"canvas, (width|height)"):
            device.canvas(*size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="OffscreenCanvas"):
        device.canvas(4, 3, target="#canvas")
    with pytest.raises(InputError, match="OffscreenCanvas"):
        await canvas.attach(object())
    async with await bascule.open_device("cpu") as other:
        with pytest.raises(InputError, match="buffer of this device"):
            await canvas.draw(await other.buffer(np.zeros((3, 4), np.float32)))
    device.close()
    with pytest.raises(InputError, match="open device"):
        device.canvas(4, 3)
    with pytest.raises(InputError, match="open device"):
        await canvas.draw(np.zeros((3, 4), np.float32))
