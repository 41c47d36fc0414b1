"""CTranslate2's model.bin of the tiny Whisper: what is read of it, and hostile files."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bascule.errors import BasculeError, ModelFileError, UnsupportedModelError
from bascule.models.speech.config import SpeechConfig
from bascule.models.tensors import compare_tensors
from bascule.models.whisper import WHISPER
from bascule.models.whisper.config import read_config
from bascule.models.whisper.ctranslate2 import read_sizes, whisper_tensors
from bascule.models.whisper.files import tensors
from bascule.weights.ctranslate2 import read_bin_header
from bascule.weights.safetensors import TensorInfo
from tests.goldens.families import Case, Tensors
from tests.goldens.whisper import CONFIG, whisper

Variables = dict[str, "np.ndarray[Any, Any]"]
_TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def folder_tensors() -> Variables:
    made = Tensors(Case("whisper", CONFIG, whisper, lambda: None, seed=21))  # type: ignore[arg-type]
    whisper(made)
    return made.found


def variables(found: Mapping[str, np.ndarray]) -> Variables:
    """The same numbers under CTranslate2's names, with its stacked projections."""
    c = CONFIG["d_model"]
    made: Variables = {}
    for half in ("encoder", "decoder"):
        made[f"{half}/num_heads"] = np.array(CONFIG[f"{half}_attention_heads"], np.int16)
        places = found[f"model.{half}.embed_positions.weight"]
        made[f"{half}/position_encodings/encodings"] = places
        _norm(made, f"{half}/layer_norm", found, f"model.{half}.layer_norm")
        for layer in range(CONFIG[f"{half}_layers"]):
            ours, theirs = f"{half}/layer_{layer}", f"model.{half}.layers.{layer}"
            _linear(made, f"{ours}/ffn/linear_0", found, f"{theirs}.fc1")
            _linear(made, f"{ours}/ffn/linear_1", found, f"{theirs}.fc2")
            _norm(made, f"{ours}/ffn/layer_norm", found, f"{theirs}.final_layer_norm")
            name = f"{theirs}.self_attn"
            _norm(made, f"{ours}/self_attention/layer_norm", found, f"{name}_layer_norm")
            stack = [f"{name}.{part}_proj" for part in "qkv"]
            _linear(made, f"{ours}/self_attention/linear_0", found, *stack)
            _linear(made, f"{ours}/self_attention/linear_1", found, f"{name}.out_proj")
            if half == "decoder":
                name = f"{theirs}.encoder_attn"
                _norm(made, f"{ours}/attention/layer_norm", found, f"{name}_layer_norm")
                _linear(made, f"{ours}/attention/linear_0", found, f"{name}.q_proj")
                stack = [f"{name}.{part}_proj" for part in "kv"]
                _linear(made, f"{ours}/attention/linear_1", found, *stack)
                _linear(made, f"{ours}/attention/linear_2", found, f"{name}.out_proj")
    for conv in ("conv1", "conv2"):
        for end in ("weight", "bias"):
            made[f"encoder/{conv}/{end}"] = found[f"model.encoder.{conv}.{end}"]
    made["decoder/embeddings/weight"] = found["model.decoder.embed_tokens.weight"]
    made["decoder/activation"] = np.array(3, np.int8)
    made["decoder/pre_norm"] = np.array(1, np.int8)
    made["decoder/alignment_heads"] = np.zeros((1, 2), np.int16)
    assert c == made["encoder/conv1/weight"].shape[0]
    return made


def _norm(made: Variables, name: str, found: Mapping[str, np.ndarray], theirs: str) -> None:
    made[f"{name}/gamma"], made[f"{name}/beta"] = (
        found[f"{theirs}.{end}"] for end in ("weight", "bias")
    )


def _linear(made: Variables, name: str, found: Mapping[str, np.ndarray], *stack: str) -> None:
    made[f"{name}/weight"] = np.concatenate([found[f"{each}.weight"] for each in stack])
    biases = [found.get(f"{each}.bias", np.zeros(CONFIG["d_model"])) for each in stack]
    made[f"{name}/bias"] = np.concatenate(biases).astype(np.float32)


def written(made: Mapping[str, np.ndarray], **change: Any) -> bytes:
    """A model.bin of these variables."""
    parts = [
        struct.pack("<I", change.get("version", 6)),
        _string(change.get("spec", "WhisperSpec")),
    ]
    parts.append(struct.pack("<II", 3, change.get("count", len(made))))
    for name, array in sorted(made.items()):
        raw = np.ascontiguousarray(array).tobytes()
        axes = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        parts += [_string(name), axes, struct.pack("<BI", _TYPES[array.dtype.name], len(raw)), raw]
    alias, name = change.get("alias", ("decoder/projection/weight", "decoder/embeddings/weight"))
    return b"".join([*parts, struct.pack("<I", 1), _string(alias), _string(name)])


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def opened(data: bytes) -> tuple[SpeechConfig, dict[str, TensorInfo]]:
    """What is read of a model.bin, every read within it."""

    async def read(offset: int, count: int) -> bytes:
        assert 0 <= offset <= len(data) - count
        return data[offset : offset + count]

    async def all_of_it() -> tuple[SpeechConfig, dict[str, TensorInfo]]:
        header = await read_bin_header(read, len(data), "model.bin")
        result = whisper_tensors(header, "model.bin")
        sizes = await read_sizes(header, read, "model.bin")
        compare_tensors(tensors(sizes), result, WHISPER.ignored, "model.bin")
        return sizes, result

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_sound_file_has_the_folders_tensors(dtype: type) -> None:
    result = folder_tensors()
    made = {
        name: array.astype(dtype) if array.dtype == np.float32 else array
        for name, array in variables(result).items()
    }
    data = written(made)
    sizes, table = opened(data)
    assert sizes == read_config(CONFIG, "config.json")
    assert table.keys() == dict(tensors(sizes)).keys() == result.keys()
    for name, tensor in table.items():
        raw = data[tensor.start : tensor.start + tensor.nbytes]
        numbers = np.frombuffer(raw, dtype).reshape(tensor.shape)
        np.testing.assert_array_equal(numbers, result[name].astype(dtype), err_msg=name)


def changed(**change: Any) -> Variables:
    made = variables(folder_tensors())
    for name, array in change.items():
        if array is None:
            del made[name]
        else:
            made[name] = array
    return made


_QKV = "encoder/layer_0/self_attention/linear_0/weight"


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"version": 5}, UnsupportedModelError, "version is 5"),
        ({"spec": "TransformerSpec"}, UnsupportedModelError, "TransformerSpec, not a Whisper"),
        ({"count": 2**32 - 1}, ModelFileError, "claims 4,294,967,295 variables"),
        ({"count": 1}, ModelFileError, "claims|name|cannot be"),
        ({"alias": ("a", "nothing")}, ModelFileError, "alias 'a' of 'nothing'"),
        ({"alias": ("decoder/pre_norm",) * 2}, ModelFileError, "alias 'decoder/pre_norm'"),
    ],
    ids=str,
)
def test_files_that_lie_are_rejected(
    change: dict[str, Any], error: type[BasculeError], told: str
) -> None:
    with pytest.raises(error, match=told):
        opened(written(changed(), **change))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"decoder/activation": np.array(0, np.int8)}, UnsupportedModelError, "activation is 0"),
        ({"decoder/activation": np.zeros(3, np.int8)}, ModelFileError, "not a whole number"),
        ({"decoder/num_heads": None}, ModelFileError, "decoder_attention_heads"),
        ({"encoder/num_heads": np.array(-4, np.int16)}, ModelFileError, "attention_heads is -4"),
        ({"decoder/adapter/weight": np.zeros(2, np.float32)}, UnsupportedModelError, "adapter"),
        ({_QKV: np.zeros((97, 32), np.float32)}, ModelFileError, "no 3 equal parts"),
        ({_QKV: np.zeros((99, 32), np.float32)}, ModelFileError, r"is \[33, 32\]"),
        ({_QKV: np.zeros((96, 32), np.int8)}, UnsupportedModelError, "I8.*float16"),
        ({_QKV: None}, ModelFileError, "lacks the tensor"),
        (
            {"decoder/embeddings/weight": np.zeros(5, np.float32)},
            ModelFileError,
            "lacks the matrix",
        ),
        (
            {"encoder/layer_9999/ffn/linear_0/bias": np.zeros(64, np.float32)},
            ModelFileError,
            "encoder_layers",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_models_that_cannot_run_are_rejected(
    change: dict[str, Any], error: type[BasculeError], told: str
) -> None:
    with pytest.raises(error, match=told):
        opened(written(changed(**change)))


def test_cut_and_damaged_files_give_an_error_of_their_own() -> None:
    data = written(changed())
    rng = np.random.default_rng(1)
    for end in (0, 1, 5, 19, 30, *rng.integers(0, len(data), 60).tolist(), len(data) - 1):
        with pytest.raises(ModelFileError):
            opened(data[:end])
    with pytest.raises(ModelFileError, match="3 bytes follow"):
        opened(data + bytes(3))
    categories: set[str] = set()
    for at in (*range(200), *rng.integers(0, len(data), 100).tolist()):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            opened(bytes(damaged))  # a number of a weight may be any
        except BasculeError as error:
            categories.add(error.category)
    assert categories == {"model-file", "unsupported-model"}
