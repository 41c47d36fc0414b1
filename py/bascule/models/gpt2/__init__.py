"""GPT-2 (Radford et al. 2019), in GGUF files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from bascule.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.metadata import read_decoder_metadata
from bascule.models.family import DecoderFamily
from bascule.models.gpt2.graph import decode, tensors


def refuse_config(config: Mapping[str, Any], file: str) -> NoReturn:
    """Refuse a folder: UnsupportedModelError. Its matrices would have to be transposed."""
    del config
    problem = "its folder has matrices column by column (Conv1D), and this version reads rows"
    raise UnsupportedModelError(file, problem, hint="Take the same model as a GGUF file.")


def read_metadata(
    metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
) -> DecoderConfig:
    """Check and read a GGUF header; errors as `DecoderFamily.config`."""
    eps = "attention.layer_norm_epsilon"
    found = read_decoder_metadata(metadata, types, rows, file, architecture="gpt2", eps=eps)
    if found.kv_heads != found.heads or found.heads * found.size != found.hidden:
        problem = f"{found.heads} heads of size {found.size} do not make {found.hidden}"
        raise ModelFileError(file, problem)
    return replace(found, rotary=False)


GPT2 = DecoderFamily(
    name="gpt2",
    examples="such as distilgpt2",
    model_types=("gpt2",),
    config=refuse_config,
    tensors=tensors,
    tensor_name=str,
    phases={"decode": decode},
    architectures={"gpt2": read_metadata},
    folders=False,
)
