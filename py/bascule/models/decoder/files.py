"""The tensors of a decoder in a Hugging Face folder or a GGUF file, compared with its config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from bascule.base.dtypes import BlockType, DType, dtype_of
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import POST_ATTENTION, POST_FFN, decode
from bascule.models.family import DecoderFamily
from bascule.weights.pieces import ELEMENT_NBYTES
from bascule.weights.safetensors import TensorInfo

TABLE = "token_embd.weight"
# A tied model has none: the embedding is used.
OUTPUT = "output.weight"
# A tensor of a GGUF file that no program reads as a weight.
ROPE_FACTORS = "rope_freqs.weight"
# A table in older files that follows from the config.
DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
# A folder's names of the tensors, which the graph names as GGUF files do.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "output": "lm_head",
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
# Numbers of a row that shaders read at once of float16 and of blocks.
_RUN = 32


def folder_name(name: str, names: Mapping[str, str] = NAMES) -> str:
    """Return a folder's name of a tensor of the graph."""
    *block, part, kind = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{names[part]}.{kind}"


def decoder_tensors(
    config: DecoderConfig,
    *,
    biases: Sequence[str] = (),
    fused: bool = False,
    head_norms: bool = False,
    post_norms: bool = False,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that `decoder.graph.decode` reads, with their shapes.

    `biases` names the parts of a layer that have one; with `fused` one tensor has the rows of q, k
    and v, and one those of gate and up; with `head_norms` each head of q and k is normalized, with
    `post_norms` the results of attention and of the gated layer are.
    """
    c, inner, row = config.hidden, config.inner, (config.hidden,)
    wide, narrow = config.heads * config.size, config.kv_heads * config.size
    yield TABLE, (config.vocabulary, c)
    yield "output_norm.weight", row
    yield OUTPUT, (config.vocabulary, c)
    for layer in range(config.layers):
        parts: dict[str, tuple[int, ...]] = {"attn_norm": row}
        if fused:
            parts["attn_qkv"] = (wide + 2 * narrow, c)
        else:
            parts |= {"attn_q": (wide, c), "attn_k": (narrow, c), "attn_v": (narrow, c)}
        if head_norms:
            parts |= dict.fromkeys(("attn_q_norm", "attn_k_norm"), (config.size,))
        if post_norms:
            parts |= dict.fromkeys((POST_ATTENTION, POST_FFN), row)
        parts |= {"attn_output": (c, wide), "ffn_norm": row}
        if not fused:
            parts["ffn_gate"] = (inner, c)
        parts |= {"ffn_up": (2 * inner if fused else inner, c), "ffn_down": (c, inner)}
        for part, shape in parts.items():
            yield f"blk.{layer}.{part}.weight", shape
            if part in biases:
                yield f"blk.{layer}.{part}.bias", shape[:1]


def with_types(
    family: DecoderFamily,
    config: DecoderConfig,
    settings: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    weights: DType | None,
    file: str,
) -> DecoderConfig:
    """Compare a folder's tensors with its config; return the config with the types of the tensors.

    Those of the files, or the format `weights` if rows are whole blocks, else float32. The
    embedding and the output get at least 8 bits, as in ggml: they determine the choice of a token.
    `file` names the config.json. ModelFileError for a tensor that is missing or has another shape,
    UnsupportedModelError for one that the family does not have.
    """
    if config.columns and weights is not None:
        problem = "its matrices lie column by column, and quantize stores by rows"
        hint = "Use the same model as a GGUF file, or load it without quantize."
        raise UnsupportedModelError(file, problem, hint=hint)
    tied = settings.get("tie_word_embeddings", family.tied)
    if not isinstance(tied, bool):
        raise ModelFileError(file, "tie_word_embeddings is not a boolean")
    types: dict[str, DType] = {}
    known = {family.tensor_name(OUTPUT)}
    for name, shape in family.tensors(config):
        if name == OUTPUT and tied:
            continue
        theirs = family.tensor_name(name)
        known.add(theirs)
        tensor = tensors.get(theirs)
        if tensor is None or tensor.shape != shape:
            result = "missing" if tensor is None else f"{list(tensor.shape)}"
            problem = f"tensor {theirs!r} is {result}, and its settings make it {list(shape)}"
            raise ModelFileError(file, problem)
        fine = weights not in (None, "f16") and name in (TABLE, OUTPUT)
        result = _type(tensor, "q8_0" if fine else weights, file)
        types[name] = "f32" if name.split(".")[-2] in config.columns else result
    for name in sorted(tensors.keys() - known):
        if not family.ignored.fullmatch(name):
            problem = f"there is a tensor {name[:80]!r}, which is not known"
            raise UnsupportedModelError(file, problem)
    return replace(config, types=types)


def _type(tensor: TensorInfo, weights: DType | None, file: str) -> DType:
    if tensor.dtype not in ELEMENT_NBYTES:
        known = ", ".join(ELEMENT_NBYTES)
        problem = f"tensor {tensor.name[:80]!r} is {tensor.dtype}, and this version reads {known}"
        raise UnsupportedModelError(file, problem)
    if tensor.shape[-1] % _RUN:
        return "f32"
    return weights or dtype_of(BlockType[tensor.dtype])


def check_metadata_tensors(family: DecoderFamily, config: DecoderConfig, file: str) -> None:
    """No tensor may be missing, and none left out: an unread bias gives wrong numbers.

    Names are compared before any program exists, whatever number of layers a header claims.
    """
    known = {ROPE_FACTORS, OUTPUT}
    for name, _ in family.tensors(config):
        known.add(name)
        if name not in config.types and name != OUTPUT:
            raise ModelFileError(file, f"it lacks the tensor {name!r} of its metadata")
    unread = sorted(config.types.keys() - known)
    if unread:
        raise UnsupportedModelError(file, f"it has tensor {unread[0]!r}, which is not known")


# A row of a family with Llama's layers; differences are passed after the name.
llama_like = partial(
    DecoderFamily,
    tensors=decoder_tensors,
    tensor_name=folder_name,
    phases={"decode": decode},
    ignored=DERIVED,
)
