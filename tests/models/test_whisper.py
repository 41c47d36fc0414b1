"""Whisper on every native tier, held to transformers in float64 on tiny random weights."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bascule.backend.base import Backend, Executable
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import open_native as open_gpu
from bascule.errors import BasculeError, ModelFileError, NotFiniteError, UnsupportedModelError
from bascule.models.tensors import compare_tensors
from bascule.models.whisper import WHISPER
from bascule.models.whisper.config import read_config
from bascule.models.whisper.files import as_matrices
from bascule.models.whisper.files import tensors as expected_tensors
from bascule.models.whisper.graph import WhisperGraph, decode, encode
from bascule.models.whisper.states import initial_states
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.parameters import all_parameters
from bascule.program.rewrites.registry import LimitFitter
from bascule.tasks.speech_alignment import attention_weights
from bascule.tasks.speech_beams import Search, search_beams
from bascule.tasks.speech_graph import SpeechSpec
from bascule.tasks.speech_rows import RowDecoder, RowPrograms, rows_program
from bascule.tasks.speech_rules import log_softmax
from bascule.weights.computed import write_computed
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import FileSource
from bascule.weights.stream import load_weights, read_headers
from tests.goldens import cosines
from tests.goldens.whisper import (
    BEAMS,
    CONFIG,
    N_BEAM_TOKENS,
    N_GREEDY,
    START,
    TEACHER,
    C,
    build,
    spectrum,
)

N_ROWS, N_SLOTS = 5, 64
GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "whisper.npz")


@dataclass
class Loaded:
    """Both passes of the tiny model on a backend, over one store of states."""

    encoder: Executable
    decoder: Executable
    rows: Executable
    states: Any
    weights: Any

    async def hear(self) -> np.ndarray:
        places = np.array([CONFIG["max_source_positions"]], np.uint32)
        (result,) = (await self.encoder.run({}, {"mel": spectrum(), "lengths": places})).values()
        return result[0]

    async def taught(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits behind the teacher's tokens, taken in N_ROWS at a time, and queries by layer."""
        results: list[list[np.ndarray]] = []
        for first in range(0, len(TEACHER), N_ROWS):
            ids = TEACHER[first : first + N_ROWS]
            bias = np.full((CONFIG["decoder_attention_heads"], N_ROWS, N_SLOTS), -1e30, np.float32)
            for row in range(N_ROWS):
                bias[:, row, : first + row + 1] = 0
            inputs = {
                "ids": np.array([ids + [0] * (N_ROWS - len(ids))], np.uint32),
                "positions": np.arange(first, first + N_ROWS, dtype=np.uint32)[None],
                "bias": bias,
            }
            for part, name in enumerate("qkv"):
                inputs[f"{name}_at"] = np.arange(part, 3 * N_ROWS, 3, dtype=np.uint32)[None]
            self.states.write("row_slot", 0, array("I", [first]))
            outputs = (await self.rows.run({"S": N_SLOTS}, inputs)).values()
            results.append([each[: len(ids)] for each in outputs])
        logits, *queries = (np.concatenate(each) for each in zip(*results, strict=True))
        return logits, np.stack(queries)

    async def keys(self, layer: int) -> np.ndarray:
        """Cross-attention's keys of a layer (X, C)."""
        raw = bytearray(CONFIG["max_source_positions"] * 2 * C * 4)
        await self.states.read(f"cross.{layer}", 0, raw)
        return np.frombuffer(raw, np.float32).reshape(-1, 2 * C)[:, :C]

    async def logits(self, position: int, token: int) -> np.ndarray:
        self.states.write("tokens", 4 * position, array("I", [token]))
        self.states.write("position", 0, array("I", [position]))
        (result,) = (await self.decoder.run({}, {})).values()
        return result[0]


async def load(backend: Backend, folder: Path, cache: Any = "f32") -> Loaded:
    config = read_config(CONFIG, "config.json")
    source = FileSource(folder)
    tables = await read_headers(source)
    result = tables["model.safetensors"]
    compare_tensors(expected_tensors(config), result, WHISPER.ignored, str(folder))
    passes = []
    for record in (encode, decode):
        graph = Graph(record.__name__)
        graph.output(record(WhisperGraph(graph, config, cache)))
        passes.append(freeze(graph))
    passes.append(rows_program(SpeechSpec(WHISPER, config), cache, N_ROWS, (0, 1)))
    parameters = all_parameters(passes)
    store = backend.store(parameters)

    async def headers() -> Any:
        return as_matrices(await read_headers(source))

    await load_weights(source, write_computed(parameters, store), store, headers=headers)
    values = {value.name: value for each in passes for value in each.states}
    states = backend.states(list(values.values()), {"S": N_SLOTS})
    for name, numbers in initial_states(config).items():
        states.write(name, 0, numbers)
    made = [await backend.prepare(each, store, states) for each in passes]
    return Loaded(*made, states, store)


async def open_tier(tier: str) -> Backend:
    if tier == "webgpu":
        return WebGpuBackend(await open_gpu())
    return WasmBackend(open_native()) if tier == "wasm" else ReferenceBackend()


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_states_logits_and_greedy_ids_are_those_of_transformers(
    tier: str, tmp_path: Path
) -> None:
    backend = await open_tier(tier)
    model = await load(backend, build(tmp_path / "whisper"))
    result = await model.hear()
    assert cosines(result, GOLDENS["states"]).min() > 0.99999
    taught = np.stack([await model.logits(i, token) for i, token in enumerate(TEACHER)])
    assert cosines(taught, GOLDENS["logits"]).min() > 0.99999
    assert np.abs(taught - GOLDENS["logits"]).max() < 2e-3
    assert GOLDENS["margin"] > 0.01
    ids = [START]
    for _ in range(N_GREEDY):
        ids.append(int(np.argmax(await model.logits(len(ids) - 1, ids[-1]))))
    assert ids == GOLDENS["greedy"].tolist()
    assert len(set(ids)) > N_GREEDY // 3
    backend.close()


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_several_tokens_at_once_attend_as_those_of_transformers(
    tier: str, tmp_path: Path
) -> None:
    backend = await open_tier(tier)
    model = await load(backend, build(tmp_path / "whisper"))
    await model.hear()
    logits, queries = await model.taught()
    assert cosines(logits, GOLDENS["logits"]).min() > 0.99999
    heads, crossed = CONFIG["decoder_attention_heads"], GOLDENS["crossed"]
    assert np.ptp(crossed, axis=-1).min() > 0.02  # no head looks everywhere alike
    for layer in range(CONFIG["decoder_layers"]):
        keys = np.split(await model.keys(layer), heads, axis=1)
        parts = zip(np.split(queries[layer], heads, axis=1), keys, crossed[layer], strict=True)
        for q, k, expected in parts:
            result = attention_weights(q, k, CONFIG["max_source_positions"])
            np.testing.assert_allclose(result, expected, atol=1e-4)
    backend.close()


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_caches_of_halves_are_close(tier: str, tmp_path: Path) -> None:
    backend = await open_tier(tier)
    model = await load(backend, build(tmp_path / "whisper"), "f16")
    await model.hear()
    taught = np.stack([await model.logits(i, token) for i, token in enumerate(TEACHER)])
    assert cosines(taught, GOLDENS["logits"]).min() > 0.9999
    backend.close()


def log_probabilities(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    del ids  # any token may follow
    return log_softmax(logits.astype(np.float64))


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_beams_end_with_the_texts_of_transformers(tier: str, tmp_path: Path) -> None:
    backend = await open_tier(tier)
    model = await load(backend, build(tmp_path / "whisper"))
    await model.hear()
    speech = SpeechSpec(WHISPER, read_config(CONFIG, "config.json"))
    fitting = LimitFitter(backend.limits)
    programs = RowPrograms(backend, model.weights, model.states, fitting, speech, "f32")
    expected = zip(BEAMS, GOLDENS["beam_ids"], GOLDENS["beam_totals"], strict=True)
    for (end, beams, penalty), ids, total in expected:
        rows = RowDecoder(programs, beams, (), lambda where: NotFiniteError("m", where, tier))
        search = Search(beams, 1.0, penalty, end, N_BEAM_TOKENS)
        best, _ = await search_beams(rows, [START], search, log_probabilities)
        assert list(best.ids) == [token for token in ids.tolist() if token >= 0]
        assert best.total == pytest.approx(total, abs=2e-3)
    # A longer search has other rows; more beams than tokens that may follow are no error.
    narrow = Search(5, 2.0, 1.0, 95, N_BEAM_TOKENS)
    rows = RowDecoder(programs, 5, (), lambda where: NotFiniteError("m", where, tier))

    def two(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        allowed = np.full(len(logits), -np.inf)
        allowed[[10, 95]] = np.log([0.6, 0.4])
        return allowed if len(ids) < 3 else np.where(np.arange(len(logits)) == 95, 0.0, -np.inf)

    best, _ = await search_beams(rows, TEACHER[:7], narrow, two)
    assert best.ids == (10, 10, 10)
    assert best.total == pytest.approx(3 * np.log(0.6))
    programs.close()
    backend.close()


async def test_what_was_heard_is_computed_once(tmp_path: Path) -> None:
    """The decoder has no encoder's weight, no cross-attention's key and value among its own."""
    config = read_config(CONFIG, "config.json")
    graph = Graph("decode")
    graph.output(decode(WhisperGraph(graph, config)))
    assert not [name for name in graph.parameters if "model.encoder" in name or ".kv." in name]
    crossed = [v.name for v in graph.states if v.name.startswith("cross.")]
    assert crossed == ["cross.0", "cross.1"]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"activation_function": "relu"}, UnsupportedModelError, "activation_function is relu"),
        ({"scale_embedding": True}, UnsupportedModelError, "scale_embedding"),
        ({"d_model": 30}, ModelFileError, "d_model 30 does not fit 4 encoder heads"),
        ({"decoder_attention_heads": 16}, ModelFileError, "does not fit 16 decoder heads"),
        ({"vocab_size": -1}, ModelFileError, "vocab_size"),
        ({"encoder_layers": 10**9}, ModelFileError, "encoder_layers"),
        ({"max_target_positions": "448"}, ModelFileError, "max_target_positions"),
        ({"max_target_positions": 4096}, ModelFileError, "max_target_positions"),
        ({"num_mel_bins": 0}, ModelFileError, "num_mel_bins"),
    ],
    ids=str,
)
def test_settings_that_cannot_run_are_rejected(
    change: dict[str, Any], error: type[BasculeError], told: str
) -> None:
    with pytest.raises(error, match=told):
        read_config({**CONFIG, **change}, "config.json")


async def test_tensors_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    folder = build(tmp_path / "whisper")
    config, file = read_config(CONFIG, "config.json"), folder / "model.safetensors"
    tensors = load_file(file)
    name = "model.encoder.conv1.weight"
    wrong = (
        ({name: None}, ModelFileError, "lacks the tensor 'model.encoder.conv1.weight'"),
        ({name: tensors[name].reshape(32, -1)}, ModelFileError, r"is \[32, 36\]"),
        ({"adapter": tensors[name]}, UnsupportedModelError, "tensor 'adapter'"),
    )

    def check(found: dict[str, TensorInfo]) -> None:
        compare_tensors(expected_tensors(config), found, WHISPER.ignored, "folder")

    for change, error, result in wrong:
        kept = {n: t for n, t in {**tensors, **change}.items() if t is not None}
        save_file(kept, file)
        with pytest.raises(error, match=result):
            check((await read_headers(FileSource(folder)))["model.safetensors"])
    save_file({**tensors, "proj_out.weight": tensors[name]}, file)  # tied: not read
    check((await read_headers(FileSource(folder)))["model.safetensors"])
