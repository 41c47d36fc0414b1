"""The image encoders of vision_folders.py as ONNX graphs for the peers: the same weights and sums.

Input pixels (1, 3, 224, 224) float32, normalized; output y (1, N): ViT's logits, CLIP's embedding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from bascule.models.clip.graph import IMAGE, POST_NORM, PRE_NORM
from bascule.models.image.graph import LayerNames
from bench.make_onnx import Builder

HIDDEN, HEADS, LAYERS, SIDE = 768, 12, 12, 224
_VIT = LayerNames(
    "encoder.layer.{}",
    "layernorm_before",
    *(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
)


def build_vit(folder: Path, target: Path) -> None:
    """Write ViT's classifier."""
    b = Builder(load_file(folder / "model.safetensors"))
    places = "embeddings.position_embeddings"
    x = _patches(b, 16, "embeddings.patch_embeddings.projection", "embeddings.cls_token", places)
    x = b.layer_norm(_token(b, _layers(b, x, _VIT, 1e-12)), "layernorm", 1e-12)
    _save(b, b.linear(x, "classifier"), target)


def build_clip(folder: Path, target: Path) -> None:
    """Write CLIP's image encoder."""
    b = Builder(load_file(folder / "model.safetensors"))
    at = "vision_model.embeddings"
    names = (f"{at}.patch_embedding", f"{at}.class_embedding", f"{at}.position_embedding.weight")
    x = b.layer_norm(_patches(b, 32, *names), PRE_NORM, 1e-5)
    x = b.layer_norm(_token(b, _layers(b, x, IMAGE, 1e-5)), POST_NORM, 1e-5)
    weight = np.ascontiguousarray(b.weights["visual_projection.weight"].T)
    y = b.op("MatMul", x, b.const(weight))
    _save(b, b.op("Div", y, b.op("ReduceL2", y, axes=[1], keepdims=1)), target)


def _patches(b: Builder, patch: int, projection: str, token: str, places: str) -> str:
    weight = b.weights[f"{projection}.weight"].reshape(HIDDEN, 3, patch, patch)
    biases = [b.const(bias)] if (bias := b.weights.get(f"{projection}.bias")) is not None else []
    x = b.op("Conv", "pixels", b.const(weight), *biases, strides=[patch, patch])
    x = b.op("Transpose", b.op("Reshape", x, b.ints(1, HIDDEN, -1)), perm=[0, 2, 1])
    first = b.const(b.weights[token].reshape(1, 1, HIDDEN))
    return b.op("Add", b.op("Concat", first, x, axis=1), b.const(b.weights[places]))


def _layers(b: Builder, x: str, names: LayerNames, eps: float) -> str:
    size = HIDDEN // HEADS

    def split(y: str, name: str, order: list[int]) -> str:
        flat = b.op("Reshape", b.linear(y, name), b.ints(0, 0, HEADS, size))
        return b.op("Transpose", flat, perm=order)

    for layer in range(LAYERS):
        at = names.layer.format(layer)
        y = b.layer_norm(x, f"{at}.{names.before}", eps)
        q = split(y, f"{at}.{names.query}", [0, 2, 1, 3])
        k = split(y, f"{at}.{names.key}", [0, 2, 3, 1])
        v = split(y, f"{at}.{names.value}", [0, 2, 1, 3])
        scores = b.op("Div", b.op("MatMul", q, k), b.const(np.float32(size**0.5)))
        y = b.op("MatMul", b.op("Softmax", scores, axis=-1), v)
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, HIDDEN))
        x = b.op("Add", b.linear(y, f"{at}.{names.mixed}"), x)
        y = b.linear(b.layer_norm(x, f"{at}.{names.after}", eps), f"{at}.{names.up}")
        x = b.op("Add", b.linear(_activated(b, y, names is IMAGE), f"{at}.{names.down}"), x)
    return x


def _activated(b: Builder, x: str, quick: bool) -> str:
    if quick:
        return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, b.const(np.float32(1.702)))))
    erf = b.op("Erf", b.op("Div", x, b.const(np.float32(2**0.5))))
    half = b.op("Mul", x, b.op("Add", erf, b.const(np.float32(1))))
    return b.op("Mul", half, b.const(np.float32(0.5)))


def _token(b: Builder, x: str) -> str:
    return b.op("Gather", x, b.const(np.array(0, np.int64)), axis=1)


def _save(b: Builder, y: str, target: Path) -> None:
    b.nodes.append(helper.make_node("Identity", [y], ["y"]))
    sizes = [1, 3, SIDE, SIDE]
    graph = helper.make_graph(
        b.nodes,
        "image encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "N"])],
        [numpy_helper.from_array(value, name) for name, value in b.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, target)
