"""Float weights that become blocks while they load, and arrays that do by themselves."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule.backend.quantize import quantize
from bascule.base.dtypes import BlockType
from bascule.errors import FileChangedError, InputError, ModelFileError
from bascule.weights.quantized import SLAB_BLOCKS
from bascule.weights.source import FileSource
from bench.quality import TEXTS, quality
from tests.goldens import TINY_BERT, cosines, golden

TIERS = ["webgpu", "cpu"]
MINILM_NBYTES = {None: 90_259_968, "q8_0": 24_644_208, "q4_1": 14_871_648, "q4_0": 13_475_568}
# Least cosine mean, cosine, Spearman and share of equal neighbours; measured 0.9999, 0.9995, 0.9998
# and 1 in 8 bits, 0.972, 0.915, 0.956 and 0.82 in Q4_1, 0.968, 0.908, 0.956 and 0.84 in Q4_0.
BOUNDS = {
    "q8_0": (0.9997, 0.999, 0.999, 0.95),
    "q4_1": (0.965, 0.89, 0.94, 0.7),
    "q4_0": (0.96, 0.88, 0.94, 0.7),
}
SLAB_NBYTES = 128 * SLAB_BLOCKS


async def peak_of(opened: Any, **options: Any) -> tuple[Any, int]:
    """A MiniLM, and the most bytes that the device held while it loaded."""
    peak = 0

    def notify(_: Any) -> None:
        nonlocal peak
        peak = max(peak, opened.backend.gpu.allocated_nbytes)

    return await opened.load("all-MiniLM-L6-v2", progress=notify, **options), peak


@pytest.mark.parametrize("format", BOUNDS)
async def test_minilm_in_blocks(format: str) -> None:
    results = {}
    async with await bascule.load("all-MiniLM-L6-v2", tier="cpu") as model:
        assert model.quantization is None
        assert model.weights.nbytes == MINILM_NBYTES[None]
        floats = await model.embed(TEXTS)
    for tier in (*TIERS, "wasm"):
        async with await bascule.load("all-MiniLM-L6-v2", tier=tier, quantize=format) as model:
            results[tier] = await model.embed(TEXTS[:: 1 if tier == "cpu" else 5])
            report = model.quantization
            assert model.weights.nbytes == MINILM_NBYTES[format] == report.nbytes
        assert report.format == format
        assert report.nbytes_before == MINILM_NBYTES[None]
        assert len(json.dumps(report.as_json())) > 1000
        blocks = [tensor for tensor in report.tensors if tensor.dtype == format]
        assert {t.name for t in report.tensors if t.kept} == {
            t.name for t in report.tensors if t.dtype == "f32"
        }
        assert len(blocks) == 1 + 6 * 4
        near = 0.0055 if format == "q8_0" else 0.08 if format == "q4_1" else 0.088
        for tensor in blocks:
            assert 0.9 * near < tensor.relative_error < 1.25 * near
            assert tensor.max_error > 0
    measured = quality(results["cpu"], floats)
    print(f"{format}: {measured}")
    minimum = BOUNDS[format]
    assert measured.cosine_mean >= minimum[0]
    assert measured.cosine_min >= minimum[1]
    assert measured.spearman >= minimum[2]
    assert measured.same_neighbour >= minimum[3]
    # All tiers compute with the same blocks.
    for tier in ("webgpu", "wasm"):
        assert (cosines(results[tier], results["cpu"][::5]) >= 0.99999).all(), tier


async def test_the_device_never_holds_two_copies() -> None:
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    model, peak = await peak_of(opened, quantize=4)
    async with model:
        # Weights, three slabs and a chunk of staging, sums, and what the first programs take.
        first = backend.gpu.allocated_nbytes - model.weights.nbytes
        assert model.weights.nbytes == MINILM_NBYTES["q4_1"]
        print(f"peak {peak:,} of {model.weights.nbytes:,}, programs {first:,}")
        assert peak <= model.weights.nbytes + first + 3 * SLAB_NBYTES + (4 << 20) + (1 << 20)
        held = backend.gpu.allocated_nbytes
    again, _ = await peak_of(opened, quantize="q4_1", chunk_size_mb=1)
    async with again:
        assert backend.gpu.allocated_nbytes <= held
    backend.close()


def widened(folder: Path, *, layers: int, dtype: Any = np.float32, shards: int = 1) -> Path:
    """tiny-bert with sizes that take blocks: hidden 96, inner 160, odd numbers of blocks a row."""
    shutil.copytree(TINY_BERT, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 160}
    config["num_hidden_layers"] = layers
    rng = np.random.default_rng(7)
    tensors: dict[str, Any] = {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = (rng.standard_normal(shape) * 0.1).astype(dtype)

    (folder / "config.json").write_text(json.dumps(config))
    add("embeddings.word_embeddings.weight", config["vocab_size"], 96)
    add("embeddings.position_embeddings.weight", config["max_position_embeddings"], 96)
    add("embeddings.token_type_embeddings.weight", 2, 96)
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        at = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            add(f"{at}.attention.self.{part}.weight", 96, 96)
            add(f"{at}.attention.self.{part}.bias", 96)
        for name, n, k in (
            ("attention.output.dense", 96, 96),
            ("intermediate.dense", 160, 96),
            ("output.dense", 96, 160),
        ):
            add(f"{at}.{name}.weight", n, k)
            add(f"{at}.{name}.bias", n)
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    for norm in norms:
        tensors |= {f"{norm}.weight": np.ones(96, dtype), f"{norm}.bias": np.zeros(96, dtype)}
    save(folder, tensors, shards)
    return folder


def save(folder: Path, tensors: dict[str, Any], shards: int) -> None:
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    files = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors"
             for i, name in enumerate(names)}  # fmt: skip
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, folder / file)
    result = json.dumps({"weight_map": files})
    (folder / "model.safetensors.index.json").write_text(result)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("format", [*BOUNDS, "f16"])
@pytest.mark.parametrize(("dtype", "shards"), [(np.float32, 1), (np.float16, 3)])
async def test_what_loads_is_what_the_numbers_quantize_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tier: str,
    format: str,
    dtype: Any,
    shards: int,
) -> None:
    monkeypatch.setattr("bascule.weights.quantized.SLAB_BLOCKS", 37)  # slabs that cut pairs in two
    folder = widened(tmp_path / "m", layers=2, dtype=dtype, shards=shards)
    # 64 KiB: a chunk holds many slabs, and slabs lie across chunks.
    async with await bascule.load(
        folder, tier=tier, quantize=format, chunk_size_mb=1 / 16, parallel=True
    ) as model:
        texts = ["w4 w5 w6", "w7", "w8 w9 w10 w11"]
        result = await model.embed(texts)
        store: Any = model.weights
        report = {tensor.name: tensor for tensor in model.quantization.tensors}
        files = [load_file(path) for path in folder.glob("*.safetensors")]
        tensors = {name: array for file in files for name, array in file.items()}
        for name, n_blocks in (
            ("embeddings.word_embeddings.weight", None),
            ("encoder.layer.1.qkv.weight", 3 * 96 * 3),
            ("encoder.layer.0.output.dense.weight", 96 * 5),
        ):
            parts = [name]
            if "qkv" in name:
                parts = [name.replace("qkv", f"attention.self.{p}") for p in
                         ("query", "key", "value")]  # fmt: skip
            floats = np.concatenate([tensors[part] for part in parts]).astype(np.float32)
            wanted, sums = quantize(BlockType[format.upper()], floats)
            assert n_blocks is None or floats.size == 32 * n_blocks
            if tier == "cpu":
                data = store.arrays[name].data
            else:
                data = np.empty(-(-len(wanted) // 4) * 4, np.uint8)
                await model._backend.gpu.read(store.targets[name], 0, data)
            np.testing.assert_array_equal(data[: len(wanted)], wanted)
            lossless = format == "f16" and dtype is np.float16
            assert (sums.max_error == 0) == lossless
            assert report[name].relative_error == pytest.approx(sums.relative_error, rel=1e-4)
            assert report[name].max_error == pytest.approx(sums.max_error, rel=1e-4)
    async with await bascule.load(folder, tier="cpu") as model:
        floats = await model.embed(texts)
    assert (cosines(result, floats) > (0.95 if format.startswith("q4") else 0.999)).all()


async def test_rows_that_do_not_come_out_even_stay_floats() -> None:
    expected = golden("tiny-bert")
    for tier in TIERS:
        async with await bascule.load(TINY_BERT, tier=tier, quantize=4) as model:
            result = await model.embed(expected.texts)
            matrices = [t for t in model.quantization.tensors if "no multiple of 32" in t.kept]
            assert {t.dtype for t in matrices} == {"f32"}
            assert len(matrices) >= 8
            changed = [t for t in model.quantization.tensors if t.relative_error]
        assert not changed or {t.dtype for t in changed} == {"q4_1"}
        assert (cosines(result, expected.embeddings) >= (0.9 if changed else 0.99999)).all()


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
async def test_weights_that_are_no_numbers_are_told(tmp_path: Path, tier: str, bad: float) -> None:
    folder = widened(tmp_path / "m", layers=1)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.intermediate.dense.weight"][3, 5] = bad
    save(folder, tensors, 1)
    with pytest.raises(ModelFileError, match=r"layer\.0\.intermediate\.dense\.weight .* q8_0"):
        await bascule.load(folder, tier=tier, quantize=8)


async def test_a_load_can_be_cancelled_and_frees_everything() -> None:
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    loading: asyncio.Task[Any]
    left = 0

    def notify(progress: bascule.Progress) -> None:
        nonlocal left
        left -= progress.stage == "weights" and progress.done > 0
        if not left:
            loading.cancel()

    for count in (1, 3):
        left = count
        options = {"quantize": 4, "progress": notify}
        loading = asyncio.ensure_future(opened.load("all-MiniLM-L6-v2", **options))
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert backend.gpu.n_objects == 0
    backend.close()


@pytest.mark.parametrize("tier", TIERS)
async def test_a_file_that_changes_meanwhile_is_quantized_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    folder = widened(tmp_path / "m", layers=2)
    plain, changes = FileSource.stream, 0

    async def stream(self: FileSource, file: str, *rest: Any) -> None:
        nonlocal changes
        await plain(self, file, *rest)
        changes += 1
        if changes < 3:
            raise FileChangedError(f"{self.location}/{file}", "it is another one")

    async with await bascule.load(folder, tier=tier, quantize=4) as model:
        expected = (await model.embed(["w4 w5"]), model.quantization)
    monkeypatch.setattr(FileSource, "stream", stream)
    async with await bascule.load(folder, tier=tier, quantize=4) as model:
        # Errors would count three times if their sums were not begun anew, too.
        assert model.quantization == expected[1]
        np.testing.assert_array_equal(await model.embed(["w4 w5"]), expected[0])
    assert changes == 3


@pytest.mark.parametrize("wrong", [0, 3, 5, 16, True, False, "q4", "q6_k", "Q4_1", "", 4.0, [4]])
async def test_wrong_formats_are_told(wrong: Any) -> None:
    with pytest.raises(InputError, match="quantize"):
        await bascule.load(TINY_BERT, tier="cpu", quantize=wrong)


async def test_blocks_are_not_quantized_again() -> None:
    tiny = TINY_BERT.parent / "tiny-llama" / "tiny-q4_1.gguf"
    with pytest.raises(InputError, match="safetensors"):
        await bascule.load(tiny, tier="cpu", quantize=4)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("format", [*BOUNDS, "f16"])
async def test_arrays_by_themselves(tier: str, format: str, rng: np.random.Generator) -> None:
    async with bascule.WebGPUQuantizer(format=format, tier=tier) as quantizer:
        assert quantizer.bits == (16 if format == "f16" else int(format[1]))
        array = rng.standard_normal((5, 7, 96))
        result = await quantizer.quantize(array)
        assert result.shape == (5, 7, 96)
        wanted, sums = quantize(BlockType[format.upper()], array.astype(np.float32))
        np.testing.assert_array_equal(result.data, wanted)
        assert result.report.relative_error == pytest.approx(sums.relative_error, rel=1e-4)
        error = np.abs(result.dequantize() - array.astype(np.float32)).max()
        assert result.report.max_error == pytest.approx(error, rel=1e-4)
        turned = rng.standard_normal((64, 96)).astype(np.float16).T
        both = await quantizer.quantize({"a": array, "b": turned})
        np.testing.assert_array_equal(both["a"].data, result.data)
        np.testing.assert_allclose(both["b"].dequantize(), turned, atol=0.5)


async def test_large_arrays_go_in_steps() -> None:
    array = np.random.default_rng(1).standard_normal((2500, 1024)).astype(np.float32)
    output = list[bascule.Progress]()
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    quantizer = bascule.WebGPUQuantizer(8, device=opened)
    peak = 0

    def notify(progress: bascule.Progress) -> None:
        nonlocal peak
        output.append(progress)
        peak = max(peak, backend.gpu.allocated_nbytes)

    result = await quantizer.quantize(array, progress=notify)
    assert [p.done for p in output] == [1 << 20, 2 << 20, array.size]
    assert peak < result.data.nbytes + SLAB_NBYTES + (1 << 20)
    np.testing.assert_array_equal(result.data, quantize(BlockType.Q8_0, array)[0])
    quantizer.close()
    quantizer.close()
    assert backend.lost == ""
    with pytest.raises(InputError, match="closed"):
        await quantizer.quantize(array)
    backend.close()


async def test_wrong_arrays_are_told() -> None:
    async with bascule.WebGPUQuantizer(tier="cpu") as quantizer:
        assert quantizer.format == "q4_1"
        for wrong in (np.ones((2, 33)), np.ones(()), np.zeros((0, 32)), np.ones(32, int), "text"):
            with pytest.raises(InputError, match="quantize"):
                await quantizer.quantize(wrong)
        for bad in (np.nan, np.inf, 1e39, 3e38):
            with pytest.raises(InputError, match="finite"):
                await quantizer.quantize(np.full((2, 32), [bad] + 31 * [0.5]))
        with pytest.raises(InputError, match="'b'"):
            await quantizer.quantize({"a": np.ones(32), "b": np.ones(31)})
    for bits, format in ((5, None), (8, "q4_0"), (None, "q6_k"), (None, "")):
        with pytest.raises(InputError):
            bascule.WebGPUQuantizer(bits, format)
