"""patches and place_rows, and tiled extraction over both."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError, LimitError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.rewrites.rewrite import Limits
from bascule.program.rewrites.tiles import tiled_extraction
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
    found = await check_op(gpu, "software", "patches", [x], tolerance=0, first=0, lines=0, **given)
    (_, (k_height, k_width), (stride_y, stride_x), (pad_y, pad_x)) = case
    framed = np.pad(x, ((0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)))
    expected = [
        image[top : top + k_height, left : left + k_width].ravel()
        for image in framed
        for top in range(0, framed.shape[1] - k_height + 1, stride_y)
        for left in range(0, framed.shape[2] - k_width + 1, stride_x)
    ]
    np.testing.assert_array_equal(found, expected)


async def test_patches_of_some_lines(gpu: NativeGpu, rng: np.random.Generator) -> None:
    x, given = normal(rng, 2, 9, 8, 3), window(CASES[3])
    whole = FUNCTIONS["patches"](x, first=0, lines=0, **given)
    found = await check_op(gpu, "software", "patches", [x], tolerance=0, first=3, lines=4, **given)
    np.testing.assert_array_equal(found, whole[3 * 7 : 7 * 7])


@pytest.mark.parametrize(
    "change", [{"stride_x": 0}, {"k_height": 99}, {"pad_y": -1}, {"first": 9, "lines": 9}]
)
def test_windows_without_a_place_are_refused(change: dict[str, int]) -> None:
    graph = Graph("refused")
    x = graph.input("x", (1, 9, 8, 3))
    with pytest.raises(InputError, match="op patches"):
        graph.call("patches", x, **{**window(CASES[3]), "first": 0, "lines": 0, **change})


LIMITS = [
    Limits(memory_nbytes=12_000),
    Limits(memory_nbytes=1),
    Limits(binding_nbytes=8_000),
    Limits(dispatch_work=20_000),
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_tiles_give_what_the_whole_gives_in_less(
    gpu: NativeGpu, rng: np.random.Generator, limits: Limits, tier: str
) -> None:
    graph = Graph("extraction")
    x = graph.input("x", (2, 17, 13, 3))
    given = {"k_height": 5, "k_width": 4, "stride_y": 2, "stride_x": 3, "pad_y": 2, "pad_x": 1}
    patches = graph.call("patches", x, first=0, lines=0, **given)
    weight, bias = graph.parameter("weight", (11, 60)), graph.parameter("bias", (11,))
    graph.output(graph.call("linear", patches, weight, bias, activation="gelu"))
    plain = freeze(graph)
    tiled, taken = tiled_extraction(plain, limits)
    assert [t.strategy for t in taken] == ["tiled_extraction"]
    assert taken[0].parts > 1
    assert [o.name for o in tiled.outputs] == [o.name for o in plain.outputs]
    assert tiled.planned_nbytes < plain.planned_nbytes
    if limits.memory_nbytes > 1:
        assert tiled.planned_nbytes <= limits.memory_nbytes
    assert max(call.result.nbytes for call in tiled.calls) <= limits.binding_nbytes

    backends = {
        "webgpu": lambda: WebGpuBackend(gpu),
        "wasm": lambda: WasmBackend(open_native()),
        "cpu": ReferenceBackend,
    }
    backend = backends[tier]()
    arrays = {"weight": normal(rng, 11, 60), "bias": normal(rng, 11)}
    image = normal(rng, 2, 17, 13, 3)
    results = []
    for program in (plain, tiled):
        store = backend.store(program.parameters)
        for name, array in arrays.items():
            store.write(store.targets[name], 0, array.data)
        executable = await backend.prepare(program, store)
        for _ in range(2):  # a second run finds what the first has left
            (found,) = (await executable.run({}, {"x": image})).values()
        results.append(found)
        executable.close()
        store.close()
    wide = FUNCTIONS["patches"](image.astype(np.float64), first=0, lines=0, **given)
    expected = FUNCTIONS["linear"](
        wide, arrays["weight"].astype(np.float64), arrays["bias"], activation="gelu"
    )
    for found in results:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=1e-5)


def test_within_the_limits_nothing_is_tiled_and_past_all_help_it_says_so() -> None:
    graph = Graph("extraction")
    x = graph.input("x", (1, 8, 8, 4))
    given = {**window(CASES[2]), "first": 0, "lines": 0}
    patches = graph.call("patches", x, **given)
    graph.output(graph.call("linear", patches, graph.parameter("w", (3, 64)), activation="none"))
    program = freeze(graph)
    assert tiled_extraction(program, Limits()) == (program, [])
    with pytest.raises(LimitError, match="a line of patches"):
        tiled_extraction(program, Limits(binding_nbytes=511))
