"""Whisper in a CTranslate2 folder: sizes and tensors of its model.bin, by Hugging Face's names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.speech.config import SpeechConfig
from bascule.models.whisper.config import read_config
from bascule.weights.ctranslate2 import BinHeader, Read, read_bin_header
from bascule.weights.pieces import ELEMENT_NBYTES
from bascule.weights.safetensors import DTYPE_NBYTES, TensorInfo

# Numbers of the specification, and the value that each must have if present.
_PLAIN: Mapping[str, int] = {
    "decoder/activation": 3,  # gelu
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
_LAYER = re.compile(r"(encoder|decoder)/layer_(\d{1,4})/(.+)")
_ENDS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
# Names of single variables, and of a layer's parts; several names share rows in equal parts.
_ONCE: Mapping[str, str] = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "decoder/embeddings": "model.decoder.embed_tokens",
}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
# Not read: the output layer, which is the embedding, and word timestamps' heads.
_UNREAD = ("decoder/projection/weight", "decoder/alignment_heads", "decoder/alignment_layer")


def whisper_tensors(header: BinHeader, file: str) -> dict[str, TensorInfo]:
    """Return the tensors of a model.bin by their names in a Hugging Face folder.

    Stacked projections become separate tensors. ModelFileError if they cannot be separated,
    UnsupportedModelError for integer weights or an unknown variable.
    """
    if header.specification != "WhisperSpec":
        problem = f"it holds a {header.specification[:40]}, not a Whisper"
        raise UnsupportedModelError(file, problem)
    results: dict[str, TensorInfo] = {}
    for name, variable in header.variables.items():
        if name in _UNREAD or name in _PLAIN or name.endswith("/num_heads"):
            continue
        if variable.dtype not in ELEMENT_NBYTES:
            problem = f"its {name[:80]} is {variable.dtype}, and this version reads floats"
            hint = "Convert the model with --quantization float16."
            raise UnsupportedModelError(file, problem, hint=hint)
        for tensor in _parts(name, variable, file):
            results[tensor.name] = tensor
    return results


def _parts(name: str, variable: TensorInfo, file: str) -> Iterator[TensorInfo]:
    """Yield a variable under its other name, or the tensors that it stacks."""
    if name in _ONCE:
        yield replace(variable, name=_ONCE[name])
        return
    part, _, last = name.rpartition("/")
    end = _ENDS.get(last)
    layer = _LAYER.fullmatch(part)
    if end and part in _ONCE:
        yield replace(variable, name=f"{_ONCE[part]}.{end}")
        return
    names = _PARTS.get(layer[3]) if layer and end else None
    if layer is None or names is None:
        raise UnsupportedModelError(file, f"it has the variable {name[:80]!r}, which is not known")
    if not variable.shape or variable.shape[0] % len(names):
        problem = f"variable {name[:80]!r} is {list(variable.shape)}, no {len(names)} equal parts"
        raise ModelFileError(file, problem)
    shape = (variable.shape[0] // len(names), *variable.shape[1:])
    nbytes = variable.nbytes // len(names)
    for at, each in enumerate(names):
        own = f"model.{layer[1]}.layers.{int(layer[2])}.{each}.{end}"
        if own.endswith("k_proj.bias"):
            continue  # zeros: Whisper's keys have none
        yield TensorInfo(own, variable.dtype, shape, variable.start + at * nbytes, nbytes)


async def read_converted(
    read: Read, nbytes: int, file: str
) -> tuple[SpeechConfig, dict[str, TensorInfo]]:
    """Return the sizes and tensors of a model.bin of that size; errors as the two functions."""
    header = await read_bin_header(read, nbytes, file)
    tensors = whisper_tensors(header, file)
    return await read_sizes(header, read, file), tensors


async def read_sizes(header: BinHeader, read: Read, file: str) -> SpeechConfig:
    """Return the sizes of a model.bin's variables; `models.whisper.files` compares all of them.

    ModelFileError if one is missing or impossible, UnsupportedModelError for an unsupported one.
    """

    async def number(name: str) -> int | None:
        scalar = header.variables.get(name)
        if scalar is None:
            return None
        if scalar.shape or scalar.dtype not in ("I8", "I16", "I32"):
            raise ModelFileError(file, f"variable {name!r} is not a whole number")
        raw = await read(scalar.start, DTYPE_NBYTES[scalar.dtype])
        return int.from_bytes(raw, "little", signed=True)

    for name, plain in _PLAIN.items():
        if (value := await number(name)) not in (None, plain):
            raise UnsupportedModelError(file, f"its {name} is {value}")

    def rows(name: str, axis: int = 0) -> int:
        variable = header.variables.get(name)
        if variable is None or len(variable.shape) <= axis:
            raise ModelFileError(file, f"it lacks the matrix {name!r}")
        return variable.shape[axis]

    fields: dict[str, object] = {
        "model_type": "whisper",
        "vocab_size": rows("decoder/embeddings/weight"),
        "d_model": rows("decoder/embeddings/weight", 1),
        "num_mel_bins": rows("encoder/conv1/weight", 1),
        "max_source_positions": rows("encoder/position_encodings/encodings"),
        "max_target_positions": rows("decoder/position_encodings/encodings"),
    }
    for half in ("encoder", "decoder"):
        layers = (_LAYER.fullmatch(name) for name in header.variables)
        fields[f"{half}_layers"] = 1 + max(
            (int(m[2]) for m in layers if m and m[1] == half), default=0
        )
        fields[f"{half}_ffn_dim"] = rows(f"{half}/layer_0/ffn/linear_0/weight")
        fields[f"{half}_attention_heads"] = await number(f"{half}/num_heads")
    return read_config(fields, file)
