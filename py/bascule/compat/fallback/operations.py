"""The operations that FallbackManager knows by name: one table that all its answers come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from bascule.base.arguments import did_you_mean
from bascule.compat.fallback.operation_attention import attention, query_chunks
from bascule.compat.fallback.operation_images import feature_extraction
from bascule.compat.fallback.operation_products import (
    embedding_lookup,
    id_chunks,
    kv_cache_update,
    matmul,
    matmul_4bit,
    row_chunks,
)
from bascule.compat.fallback.operation_quantize import quantize
from bascule.compat.fallback.operation_work import Operation, Request, Work
from bascule.errors import InputError
from bascule.program.rewrites.rewrite import StrategyName

ModelType = Literal["text", "vision", "audio", "multimodal"]


def no_program(request: Request) -> Work:
    """For an operation that is another one's way to run (see `wrapped`): it has none of its own."""
    raise InputError(request.where, "to be run through FallbackManager", "a call of its own")


OPERATIONS = (
    Operation(
        "attention_compute",
        attention,
        ("attention",),
        "memory_management",
        ("chunked_attention", "head_partitioning", "partitioned_kv_cache"),
        ("query", "key", "value"),
        ("causal", "heads"),
        query_chunks,
    ),
    Operation(
        "multi_head_attention",
        attention,
        ("attention_heads",),
        "memory_management",
        ("head_partitioning", "chunked_attention", "partitioned_kv_cache"),
        ("query", "key", "value"),
        ("causal", "heads"),
        query_chunks,
    ),
    Operation(
        "matmul",
        matmul,
        ("matrix_multiply", "linear"),
        "memory_management",
        ("layer_decomposition", "progressive_quantization"),
        ("a", "b?", "weight?", "bias?"),
        chunks=row_chunks,
    ),
    Operation(
        "matmul_4bit",
        matmul_4bit,
        ("4bit_matmul", "4-bit matmul", "matrix_multiply_4bit"),
        "four_bit",
        ("layer_decomposition",),
        ("a", "b?", "weight?", "bias?"),
        chunks=row_chunks,
    ),
    Operation(
        "kv_cache_update",
        kv_cache_update,
        ("kv_cache",),
        "kv_cache",
        ("partitioned_kv_cache",),
        ("key_cache", "value_cache", "key", "value"),
        ("position",),
    ),
    Operation(
        "embedding_lookup",
        embedding_lookup,
        ("embedding", "text_embedding"),
        "memory_management",
        ("chunked_embedding",),
        ("ids", "table"),
        chunks=id_chunks,
    ),
    Operation(
        "quantize",
        quantize,
        ("quantization",),
        "four_bit",
        ("progressive_quantization",),
        ("tensor",),
        ("bits",),
    ),
    Operation(
        "feature_extraction",
        feature_extraction,
        ("vision_feature_extraction", "patch_embedding"),
        "memory_management",
        ("tiled_extraction",),
        ("image", "weight", "bias?"),
        ("stride", "padding"),
    ),
    Operation(
        "shader_compilation",
        no_program,
        ("compile_shader", "shader"),
        "shader_compilation",
        ("simplified_shader",),
        ("operation", "inputs"),
    ),
)

# What a kind of model spends its memory on besides the operation that is asked about.
MODEL_STRATEGIES: Mapping[ModelType, tuple[StrategyName, ...]] = MappingProxyType(
    {
        "text": ("chunked_embedding",),
        "vision": ("tiled_extraction",),
        "audio": (),
        "multimodal": ("chunked_embedding", "tiled_extraction"),
    }
)

_BY_NAME = MappingProxyType({name: o for o in OPERATIONS for name in (o.name, *o.aliases)})


def operation_named(name: object, where: str) -> Operation:
    """The operation of that name; InputError that lists all of them for another."""
    found = _BY_NAME.get(name) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(operation.name for operation in OPERATIONS)
        hint = did_you_mean(name, _BY_NAME)
        raise InputError(where, f"an operation of {known}", repr(name)[:80], hint=hint)
    return found


def wrapped(request: Request) -> Request:
    """The operation that `request` wants to see run on simpler shaders: "operation" names it, and
    "inputs" are its own; the context is the same. InputError.
    """
    given, where = request.inputs, request.where
    inner = operation_named(given.get("operation"), f"{where}, input 'operation'")
    inputs = given.get("inputs")
    if not isinstance(inputs, Mapping) or inner is request.operation or len(given) > 2:
        told = "the name of another 'operation' and a dictionary of its 'inputs'"
        raise InputError(where, told, repr(sorted(map(str, given)))[:80])
    return Request(inner, inputs, request.context)


def model_type_named(name: object, where: str) -> ModelType:
    """The kind of model of that name; InputError for another."""
    for known in MODEL_STRATEGIES:
        if name == known:
            return known
    raise InputError(where, f"one of {', '.join(MODEL_STRATEGIES)}", repr(name)[:80])
