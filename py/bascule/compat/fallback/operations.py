"""The table of the operations that FallbackManager runs by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from bascule.base.arguments import did_you_mean
from bascule.compat.fallback.operation_attention import attention, divide_attention
from bascule.compat.fallback.operation_cache import divide_cache, kv_cache_update
from bascule.compat.fallback.operation_images import divide_image, feature_extraction
from bascule.compat.fallback.operation_products import (
    divide_lookup,
    divide_product,
    embedding_lookup,
    matmul,
    matmul_4bit,
)
from bascule.compat.fallback.operation_quantize import divide_rows, quantize
from bascule.compat.fallback.operation_work import Operation, Request, Work
from bascule.errors import InputError

ModelType = Literal["text", "vision", "audio", "multimodal"]


def no_program(request: Request) -> Work:
    """For an operation that only runs another one (see `unwrapped`): InputError."""
    raise InputError(request.where, "to be run through FallbackManager", "a call of its own")


OPERATIONS = (
    Operation(
        "attention_compute",
        attention,
        ("attention",),
        "memory_management",
        ("chunked_attention", "head_partitioning"),
        ("query", "key", "value"),
        ("causal", "heads"),
        divide_attention,
    ),
    Operation(
        "multi_head_attention",
        attention,
        ("attention_heads",),
        "memory_management",
        ("head_partitioning", "chunked_attention"),
        ("query", "key", "value"),
        ("causal", "heads"),
        divide_attention,
    ),
    Operation(
        "matmul",
        matmul,
        ("matrix_multiply", "linear"),
        "memory_management",
        ("layer_decomposition", "progressive_quantization"),
        ("a", "b?", "weight?", "bias?"),
        divide=divide_product,
    ),
    Operation(
        "matmul_4bit",
        matmul_4bit,
        ("4bit_matmul", "4-bit matmul", "matrix_multiply_4bit"),
        "four_bit",
        ("layer_decomposition",),
        ("a", "b?", "weight?", "bias?"),
        divide=divide_product,
    ),
    Operation(
        "kv_cache_update",
        kv_cache_update,
        ("kv_cache",),
        "kv_cache",
        ("partitioned_kv_cache",),
        ("key_cache", "value_cache", "key", "value"),
        ("position",),
        divide_cache,
    ),
    Operation(
        "embedding_lookup",
        embedding_lookup,
        ("text_embedding",),
        "memory_management",
        ("chunked_embedding",),
        ("ids", "table"),
        divide=divide_lookup,
    ),
    Operation(
        "quantize",
        quantize,
        ("quantization",),
        "four_bit",
        ("progressive_quantization",),
        ("tensor",),
        ("bits",),
        divide_rows,
    ),
    Operation(
        "feature_extraction",
        feature_extraction,
        ("vision_feature_extraction", "patch_embedding"),
        "memory_management",
        ("tiled_extraction",),
        ("image", "weight", "bias?"),
        ("stride", "padding"),
        divide_image,
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

_BY_NAME = MappingProxyType({name: o for o in OPERATIONS for name in (o.name, *o.aliases)})


# The operation that "embedding" names in a model of that type.
_EMBEDDINGS: Mapping[ModelType, str] = MappingProxyType(
    {
        "text": "embedding_lookup",
        "vision": "feature_extraction",
        "audio": "feature_extraction",
        "multimodal": "embedding_lookup",
    }
)


def operation_named(
    name: object, where: str, model: ModelType = "text", inputs: object = None
) -> Operation:
    """The operation of that name; InputError with the known ones for another name.

    "embedding" names the one that a `model` of that type uses: a multimodal one extracts features
    if there is an "image" among the inputs.
    """
    if name == "embedding":
        images = model == "multimodal" and isinstance(inputs, Mapping) and "image" in inputs
        name = "feature_extraction" if images else _EMBEDDINGS[model]
    result = _BY_NAME.get(name) if isinstance(name, str) else None
    if result is None:
        known = ", ".join(operation.name for operation in OPERATIONS)
        hint = did_you_mean(name, ("embedding", *_BY_NAME))
        raise InputError(where, f"an operation of {known}", repr(name)[:80], hint=hint)
    return result


def unwrapped(request: Request) -> Request:
    """The request inside a `request` to run on simpler shaders: "operation" is its name, "inputs"
    are its inputs; the context is the same. InputError.
    """
    outer, where = request.inputs, request.where
    inner = operation_named(outer.get("operation"), f"{where}, input 'operation'")
    inputs = outer.get("inputs")
    if not isinstance(inputs, Mapping) or inner is request.operation or len(outer) > 2:
        expected = "the name of another 'operation' and a dictionary of its 'inputs'"
        raise InputError(where, expected, repr(sorted(map(str, outer)))[:80])
    return Request(inner, inputs, request.context)


def model_type_named(name: object, where: str) -> ModelType:
    """The model type of that name; InputError for another."""
    for known in _EMBEDDINGS:
        if name == known:
            return known
    raise InputError(where, f"one of {', '.join(_EMBEDDINGS)}", repr(name)[:80])
