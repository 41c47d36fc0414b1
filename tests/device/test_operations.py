"""Operations of a device, one by one, held to numpy in float64."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bascule
from bascule.backend.webgpu import gpu_native
from bascule.errors import BasculeError, DeviceLostError, InputError, LimitError
from bascule.program.ops import OPS
from bascule.program.ops.activations import ACTIVATIONS
from tests.goldens import TINY_BERT

TIERS = ("webgpu", "webgpu-limited", "wasm", "cpu")
# Of a tile's edge, one past it, odd, and one alone: (rows, inner, columns).
SIZES = [(1, 1, 1), (7, 5, 3), (17, 33, 9), (64, 64, 65), (129, 12, 67)]

Case = tuple[dict[str, Any], dict[str, Any]]  # operands and settings
Maker = Callable[[np.random.Generator, int, int, int], Case]


@pytest.fixture(params=TIERS)
async def device(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device(request.param) as opened:
        yield opened


def f32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def lengths(rng: np.random.Generator, batch: int, tokens: int) -> np.ndarray:
    return rng.integers(0, tokens + 1, batch)


def _attention(rng: np.random.Generator, t: int, _: int, __: int) -> Case:
    results = {"qkv": f32(rng, 2, t, 3 * 2 * 4), "lengths": lengths(rng, 2, t)}
    return results, {"heads": 2}


def _dot_product(rng: np.random.Generator, t: int, s: int, _: int) -> Case:
    keys = t + s
    results = {"q": f32(rng, 2, t, 16), "k": f32(rng, 2, keys, 8), "v": f32(rng, 2, keys, 8)}
    results |= {"lengths": lengths(rng, 2, keys), "bias": f32(rng, 4, t, keys)}
    return results, {"heads": 4, "kv_heads": 2, "causal": True, "window": 5}


def _embedding(rng: np.random.Generator, t: int, rows: int, c: int) -> Case:
    return {"ids": rng.integers(0, rows, (2, t)), "table": f32(rng, rows, c)}, {}


def _linear(rng: np.random.Generator, m: int, k: int, n: int) -> Case:
    results = {"x": f32(rng, m, k), "weight": f32(rng, n, k), "bias": f32(rng, n)}
    return {**results, "residual": f32(rng, m, n)}, {"activation": "gelu"}


def _layer_norm(rng: np.random.Generator, m: int, _: int, n: int) -> Case:
    return {"x": f32(rng, m, n), "weight": f32(rng, n), "bias": f32(rng, n)}, {"eps": 1e-5}


def _patches(rng: np.random.Generator, m: int, _: int, n: int) -> Case:
    shape = {"k_height": 2, "k_width": 3, "stride_y": 1, "stride_x": 2, "pad_y": 1, "pad_x": 1}
    return {"x": f32(rng, 2, m + 1, n + 2, 3)}, {**shape, "first": 0, "lines": 0}


def _pool(rng: np.random.Generator, t: int, b: int, c: int) -> Case:
    return {"x": f32(rng, b, t, c), "lengths": lengths(rng, b, t)}, {"kind": "mean"}


CASES: dict[str, Maker] = {
    "activate": lambda rng, m, k, n: ({"x": f32(rng, m, k, n)}, {"kind": "silu"}),
    "add": lambda rng, m, k, n: ({"x": f32(rng, m, k, n), "y": f32(rng, k, n)}, {}),
    "attention": _attention,
    "concat": lambda rng, m, k, n: ({"a": f32(rng, m, k), "b": f32(rng, m, n)}, {}),
    "dot_product_attention": _dot_product,
    "embedding": _embedding,
    "gated_linear": lambda rng, m, k, n: (
        {"x": f32(rng, m, k), "weight": f32(rng, 2 * n, k)},
        {"activation": "silu"},
    ),
    "l2_normalise": lambda rng, m, _, n: ({"x": f32(rng, m, n)}, {"eps": 1e-12}),
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": lambda rng, m, k, n: ({"x": f32(rng, 2, m, k), "y": f32(rng, 2, k, n)}, {}),
    "multiply": lambda rng, m, k, n: ({"x": f32(rng, m, k, n), "y": f32(rng, m, k, n)}, {}),
    "patches": _patches,
    "pool": _pool,
    "relative_bias": lambda rng, t, _, heads: (
        {"table": f32(rng, 16, heads)},
        {"length": t, "max_distance": 50},
    ),
    "rms_norm": lambda rng, m, _, n: ({"x": f32(rng, m, n), "weight": f32(rng, n)}, {"eps": 1e-6}),
    "rope": lambda rng, t, heads, _: (
        {"x": f32(rng, 2, t, heads * 6), "angles": f32(rng, t, 6)},
        {"size": 6},
    ),
    "scale": lambda rng, m, k, n: ({"x": f32(rng, m, k, n)}, {"by": 0.37}),
    "softcap": lambda rng, m, k, n: ({"x": f32(rng, m, k, n)}, {"cap": 1.5}),
    "softmax": lambda rng, m, k, n: ({"x": f32(rng, m, k, n)}, {}),
    "transpose": lambda rng, m, k, n: ({"x": f32(rng, m, k, n)}, {"axes": (2, 0, 1)}),
    **{kind: lambda rng, m, _, n: ({"x": f32(rng, m, n)}, {}) for kind in ACTIVATIONS[1:]},
}


def expected_of(name: str, operands: dict[str, Any], options: dict[str, Any]) -> np.ndarray:
    """By the op table's numpy function, in float64."""
    row = OPS["activate" if name in ACTIVATIONS else name]
    options = {"kind": name} if name in ACTIVATIONS else dict(options)
    if "axes" in options:
        options["axes"] = "".join(map(str, options["axes"]))
    options |= {n: v for n, v in row.defaults.items() if n not in options}
    exact = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in operands.items()}
    operands = [exact.get(o.name) for o in row.operands if o.role != "onto"]
    return row.numpy(*operands, **options)


def assert_close(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() < 2e-5 * scale, name


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_every_operation_on_poisoned_results(
    device: bascule.Device, rng: np.random.Generator, size: tuple[int, int, int]
) -> None:
    assert {*CASES, "reshape"} <= set(dir(device.ops))
    for name, make in CASES.items():
        operands, options = make(rng, *size)
        expected = expected_of(name, operands, options)
        run = getattr(device.ops, name)
        result = await (await run(**operands, **options)).numpy()
        assert_close(result, expected, name)
        # As buffers in the order of the signature, into memory that is full of NaN.
        names = list(run.__signature__.parameters)
        buffers = [await device.buffer(operands[n]) for n in names if n in operands]
        out = await device.buffer(np.full(expected.shape, np.nan, np.float32))
        assert await run(*buffers, **options, out=out) is out
        assert_close(await out.numpy(), expected, name)


async def test_results_stay_and_feed_the_next(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    a, b = f32(rng, 40, 24), f32(rng, 24, 40)
    product = await device.ops.matmul(a, b)
    rows = await device.ops.reshape(product, (4, 10, 40))
    result = await device.ops.gelu(await device.ops.transpose(rows, axes=(1, 0, 2)))
    again = await device.ops.matmul(product, product)
    whole = a.astype(np.float64) @ b
    expected = expected_of("gelu", {"x": whole.reshape(4, 10, 40).transpose(1, 0, 2)}, {})
    assert np.abs(await result.numpy() - expected).max() < 1e-3
    assert np.abs(await again.numpy() - whole @ whole).max() < 2e-2


async def test_a_program_is_compiled_once_for_its_shapes(
    device: bascule.Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = device.backend.computation

    async def counted(program: Any) -> Any:
        made.append(program.name)
        return await real(program)

    monkeypatch.setattr(device.backend, "computation", counted)
    both = [(f32(rng, 6, 8), f32(rng, 8, 3)) for _ in range(4)]
    found = await asyncio.gather(*(device.ops.matmul(a, b) for a, b in both))
    for (a, b), result in zip(both, found, strict=True):
        assert_close(await result.numpy(), a.astype(np.float64) @ b, "matmul")
    assert made == ["matmul"]
    a, b = both[0]
    await device.ops.matmul(a, b.T, transposed=True)
    await device.ops.matmul(f32(rng, 7, 8), b)
    assert made == ["matmul"] * 3


async def test_a_pipeline_is_compiled_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: list[str] = []
    real = gpu_native.NativeGpu.pipeline

    async def counted(self: Any, wgsl: str, constants: Any, bindings: str, label: str) -> int:
        labels.append(label)
        return await real(self, wgsl, constants, bindings, label)

    monkeypatch.setattr(gpu_native.NativeGpu, "pipeline", counted)
    async with await bascule.open_device("webgpu") as device:
        for rows in (3, 9, 3):
            await device.ops.multiply(f32(rng, rows, 5), f32(rng, rows, 5))
    assert labels.count("multiply.wgsl") == 1


async def test_memory_is_freed_with_its_buffers(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    x = f32(rng, 50, 10)
    for _ in range(3):
        await device.ops.gelu(x)
    held = device.memory().by_kind.get("buffers", 0)
    assert held == 0
    buffer = await device.buffer(x)
    view = buffer.reshape(25, -1)
    assert view.shape == (25, 20)
    assert device.memory().by_kind["buffers"] == x.nbytes == buffer.nbytes
    del buffer
    gc.collect()
    assert np.array_equal((await view.numpy()).reshape(50, 10), x)
    del view
    gc.collect()
    assert "buffers" not in device.memory().by_kind
    buffer = await device.buffer(x)
    buffer.close()
    buffer.close()
    assert "buffers" not in device.memory().by_kind
    with pytest.raises(InputError, match=r"numpy: .* one that was closed"):
        await buffer.numpy()
    with pytest.raises(InputError, match=r"op gelu, x: .* one that was closed"):
        await device.ops.gelu(buffer)
    assert "closed" in repr(buffer)


async def test_many_shapes_keep_memory_flat(rng: np.random.Generator) -> None:
    async with await bascule.open_device("webgpu") as device:
        for n in range(1, 400):
            await device.ops.gelu(f32(rng, n))
        assert device.memory().by_kind["programs"] <= 256 * 256
        assert device.backend.gpu.n_objects <= 256 + 4  # type: ignore[attr-defined]


async def test_a_chain_costs_the_driver_few_calls(rng: np.random.Generator) -> None:
    """A result's buffer, a tape made, replayed and dropped; no operand is copied."""
    async with await bascule.open_device("webgpu") as device:
        x = await device.ops.gelu(f32(rng, 40, 40))
        await device.ops.matmul(x, x)
        gpu: Any = device.backend.gpu  # type: ignore[attr-defined]
        before, written = gpu.crossings, []
        real = gpu.write
        gpu.write = lambda *call: (written.append(call), real(*call))
        for _ in range(50):
            x = await device.ops.matmul(await device.ops.gelu(x), x)
        assert gpu.crossings - before <= 5 * 100
        assert not written


async def test_whole_numbers_and_halves(device: bascule.Device, rng: np.random.Generator) -> None:
    halves = f32(rng, 3, 4).astype(np.float16)
    assert np.array_equal(await (await device.buffer(halves)).numpy(), halves.astype(np.float32))
    ids = await device.buffer(np.array([3, 0, 2], np.int64))
    assert ids.dtype == np.uint32
    assert (await ids.numpy()).tolist() == [3, 0, 2]
    table = f32(rng, 4, 5)
    result = await device.ops.embedding(ids.reshape(1, 3), table)
    assert np.array_equal(await result.numpy(), table[[3, 0, 2]][None])
    fortran = np.asfortranarray(f32(rng, 6, 4))
    assert np.array_equal(await (await device.buffer(fortran[::2])).numpy(), fortran[::2])


async def test_mistakes_say_what_to_do(device: bascule.Device, rng: np.random.Generator) -> None:
    ops, x = device.ops, f32(rng, 3, 4)
    wrong: list[tuple[Any, str]] = [
        (lambda: ops.matmul(x, x), r"op matmul: .*\(3, 4\).*matmul: z = x @ y"),
        (lambda: ops.matmul(x), "missing a required argument: 'y'"),
        (lambda: ops.matmul(x, x.T, transpose=True), "unexpected keyword argument 'transpose'"),
        (lambda: ops.matmul(x, x, transposed=1), "op matmul, transposed: expected True or False"),
        (lambda: ops.gelu(x.astype(np.float64)), r"dtype float64.*astype\(numpy.float32\)"),
        (lambda: ops.gelu(x > 0), "dtype bool"),
        (lambda: ops.gelu(np.arange(4)), r"op gelu, x: expected floats.*astype"),
        (lambda: ops.gelu(np.zeros((3, 0), np.float32)), "a non-empty array"),
        (lambda: ops.gelu(np.float32(3)), "at least one axis"),
        (lambda: ops.gelu([[1.0], [1.0, 2.0]]), "op gelu, x: expected an array"),
        (lambda: ops.gelu(None), "op gelu: expected operand 'x'"),
        (lambda: ops.activate(x, kind="gleu"), "op activate: .*gelu"),
        (lambda: ops.transpose(x, axes=(0, 0)), "axes 01 in some order"),
        (lambda: ops.l2_normalise(x, eps=np.nan), "a finite number"),
        (lambda: ops.embedding(np.array([[3]]), x), r"op embedding, ids: .*up to 2, found 3"),
        (lambda: ops.embedding(np.array([[-1]]), x), "from 0 to 4,294,967,295"),
        (lambda: ops.embedding(x, x), "op embedding, ids: expected whole numbers"),
        (lambda: ops.pool(x[None], np.array([4]), kind="mean"), r"lengths up to .* 3, found 4"),
        (lambda: ops.reshape(x, (5, -1)), "a shape of 12 elements"),
        (lambda: ops.reshape(x, ()), "a shape of 12 elements"),
        (lambda: ops.reshape(x, (-1, -1)), "One axis may be -1"),
        (lambda: ops.gelu(x, out=x), "op gelu, out: expected a DeviceBuffer"),
    ]
    for work, result in wrong:
        with pytest.raises(InputError, match=result):
            await work()
    buffer = await device.buffer(x)
    with pytest.raises(InputError, match="a buffer that is no operand"):
        await ops.gelu(buffer, out=buffer)
    with pytest.raises(InputError, match="a buffer that is no operand"):
        await ops.gelu(buffer, out=buffer.reshape(-1).reshape(3, 4))
    with pytest.raises(InputError, match=r"float32 of shape \(3, 4\)"):
        await ops.gelu(x, out=buffer.reshape(-1))
    with pytest.raises(AttributeError, match="Did you mean 'matmul'"):
        ops.matmull  # noqa: B018
    async with await bascule.open_device("cpu") as other:
        with pytest.raises(InputError, match=r"a buffer of this device, found one of another"):
            await other.ops.gelu(buffer)
    assert np.array_equal(await buffer.numpy(), x)


async def test_what_a_closed_device_says(device: bascule.Device, rng: np.random.Generator) -> None:
    buffer = await device.buffer(f32(rng, 3))
    device.close()
    for work in (
        lambda: device.ops.gelu(f32(rng, 3)),
        lambda: device.ops.reshape(f32(rng, 4), (2, 2)),
        lambda: device.buffer(f32(rng, 3)),
        buffer.numpy,
    ):
        with pytest.raises(InputError, match="one that was closed"):
            await work()
    buffer.close()
    del buffer
    assert device.memory().now_nbytes == 0


async def test_a_lost_device_says_so(rng: np.random.Generator) -> None:
    device = await bascule.open_device("webgpu")
    buffer = await device.buffer(f32(rng, 3))
    device.backend.gpu.destroy()  # type: ignore[attr-defined]
    with pytest.raises(DeviceLostError):
        await device.ops.gelu(f32(rng, 3))
    with pytest.raises(DeviceLostError):
        await buffer.numpy()
    device.close()


async def test_what_is_too_large_is_refused_with_its_bytes(rng: np.random.Generator) -> None:
    async with await bascule.open_device("webgpu-limited") as device:
        maximum = device.limits["maxStorageBufferBindingSize"]
        row = f32(rng, 6000)
        with pytest.raises(LimitError, match=f"The result of matmul needs .* {maximum:,}"):
            await device.ops.matmul(row.reshape(-1, 1), row.reshape(1, -1))
        large = np.broadcast_to(np.float32(0), (maximum // 4 + 1,))
        with pytest.raises(LimitError, match=f"op gelu, x needs {maximum + 4:,} bytes"):
            await device.ops.gelu(large)
        assert "buffers" not in device.memory().by_kind


async def test_past_one_dimension_of_workgroups(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    """65,535 workgroups of 64 lanes are the most in x."""
    x = f32(rng, 65535 * 64 + 77)
    assert np.array_equal(await (await device.ops.relu(x)).numpy(), np.maximum(x, 0))


async def test_models_and_operations_share_a_device(rng: np.random.Generator) -> None:
    async with await bascule.open_device("webgpu") as device:
        model = await device.load(TINY_BERT)
        assert isinstance(model, bascule.EmbeddingModel)
        rows = await model.embed(["w4 w5", "w6", "w7 w4"])
        result, _ = await asyncio.gather(
            device.ops.matmul(rows, rows, transposed=True), model.embed("w5")
        )
        assert np.abs(await result.numpy() - rows @ rows.T).max() < 1e-5


def test_from_plain_code(rng: np.random.Generator) -> None:
    device = bascule.sync(bascule.open_device("cpu"))
    x = f32(rng, 3, 4)
    result = bascule.sync(bascule.sync(device.ops.matmul(x, x.T)).numpy())
    assert np.allclose(result, x @ x.T)
    device.close()


def test_help_shows_what_an_operation_takes() -> None:
    device = bascule.sync(bascule.open_device("cpu"))
    assert repr(device.ops.matmul) == ("<operation matmul(x, y, *, transposed=False, out=None)>")
    assert "x @ y" in (device.ops.matmul.__doc__ or "")
    assert not hasattr(device.ops, "rope_append")  # works on a state
    device.close()


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(CASES)), shapes=st.lists(SHAPES, max_size=5), data=st.data())
def test_any_shapes_give_an_answer_or_an_error_of_ours(
    name: str, shapes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    async def run() -> None:
        async with await bascule.open_device("cpu") as device:
            operation = getattr(device.ops, name)
            numbers = st.sampled_from([np.float32, np.uint32])
            operands = [np.ones(shape, data.draw(numbers)) for shape in shapes]
            row = OPS["activate" if name in ACTIVATIONS else name]
            hidden = {*row.parts, *(["kind"] if name in ACTIVATIONS else [])}
            values = {int: st.integers(-2, 9), float: st.floats(0.1, 1), bool: st.booleans()}
            words = st.sampled_from(["gelu", "mean", "10", "0123", ""])
            options = {
                n: data.draw(values.get(kind, words))
                for n, kind in row.attributes.items()
                if n not in hidden
            }
            with suppress(BasculeError):
                await (await operation(*operands, **options)).numpy()

    asyncio.run(run())
