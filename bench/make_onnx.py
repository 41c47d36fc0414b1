"""all-MiniLM-L6-v2 as an ONNX graph for the peers: the same weights, the same sums.

No hub is needed: the weights come from the model folder. Inputs ids and mask (B, T) int64; output
embedding (B, 384) float32. Opset 17, plain ops; onnxruntime fuses them as it does for exports.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file


class Builder:
    """Collects nodes; every method returns the name of its result."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def const(self, value: np.ndarray) -> str:
        name = f"const_{len(self.constants)}"
        self.constants[name] = value
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def linear(self, x: str, name: str) -> str:
        weight = np.ascontiguousarray(self.weights[f"{name}.weight"].T)
        product = self.op("MatMul", x, self.const(weight))
        return self.op("Add", product, self.const(self.weights[f"{name}.bias"]))

    def layer_norm(self, x: str, name: str, eps: float) -> str:
        scale, bias = (self.const(self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)


def build(folder: Path, target: Path) -> None:
    """Write the graph."""
    b, config = _opened(folder)
    x, wide = _encoder(b, config, "ids", "mask", None)
    column = b.op("Unsqueeze", wide, b.ints(2))
    total = b.op("ReduceSum", b.op("Mul", x, column), b.ints(1), keepdims=0)
    mean = b.op("Div", total, b.op("ReduceSum", wide, b.ints(1), keepdims=1))
    norm = b.op("ReduceL2", mean, axes=[1], keepdims=1)
    b.nodes.append(helper.make_node("Div", [mean, norm], ["embedding"]))
    _save(b, target, ["ids", "mask"], "embedding", ["B", config["hidden_size"]])


def build_for_transformers(folder: Path, target: Path) -> None:
    """Write a folder as transformers.js loads it; names are those of the hub's exports.

    Inputs input_ids, attention_mask and token_type_ids (B, T) int64; output last_hidden_state
    (B, T, 384) float32: the library pools and normalises itself.
    """
    b, config = _opened(folder)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    x, _ = _encoder(b, config, *names)
    b.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    (target / "onnx").mkdir(parents=True, exist_ok=True)
    shape = ["B", "T", config["hidden_size"]]
    _save(b, target / "onnx" / "model.onnx", names, "last_hidden_state", shape)
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(folder / file, target / file)
    tokens = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (target / "tokenizer_config.json").write_text(json.dumps(tokens))


def _opened(folder: Path) -> tuple[Builder, dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text())
    return Builder(load_file(folder / "model.safetensors")), config


def _encoder(
    b: Builder, config: dict[str, Any], ids: str, mask: str, kinds: str | None
) -> tuple[str, str]:
    """The hidden state, and the mask as floats."""
    eps, heads = config["layer_norm_eps"], config["num_attention_heads"]
    x = _embeddings(b, eps, ids, kinds)
    wide = b.op("Cast", mask, to=TensorProto.FLOAT)
    hidden_keys = b.op("Mul", b.op("Sub", b.const(np.float32(1)), wide), b.const(np.float32(-1e9)))
    bias = b.op("Unsqueeze", hidden_keys, b.ints(1, 2))
    for layer in range(config["num_hidden_layers"]):
        size = config["hidden_size"] // heads
        x = _layer(b, x, bias, f"encoder.layer.{layer}", heads, size, eps)
    return x, wide


def _save(b: Builder, target: Path, inputs: list[str], output: str, shape: list[Any]) -> None:
    graph = helper.make_graph(
        b.nodes,
        "minilm",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["B", "T"]) for n in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in b.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _embeddings(b: Builder, eps: float, ids: str, kinds: str | None) -> str:
    word, position, kind = (
        b.const(b.weights[f"embeddings.{n}_embeddings.weight"])
        for n in ("word", "position", "token_type")
    )
    tokens = b.op("Gather", b.op("Shape", ids), b.const(np.array(1, np.int64)), axis=0)
    zero, one = b.const(np.array(0, np.int64)), b.const(np.array(1, np.int64))
    places = b.op("Gather", position, b.op("Range", zero, tokens, one))
    kinds = kinds or b.const(np.array(0, np.int64))
    summed = b.op(
        "Add", b.op("Add", b.op("Gather", word, ids), places), b.op("Gather", kind, kinds)
    )
    return b.layer_norm(summed, "embeddings.LayerNorm", eps)


def _layer(b: Builder, x: str, bias: str, name: str, heads: int, size: int, eps: float) -> str:
    def split(part: str, order: list[int]) -> str:
        flat = b.linear(x, f"{name}.attention.self.{part}")
        return b.op("Transpose", b.op("Reshape", flat, b.ints(0, 0, heads, size)), perm=order)

    q, k, v = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
    scores = b.op("Div", b.op("MatMul", q, k), b.const(np.float32(size**0.5)))
    weights = b.op("Softmax", b.op("Add", scores, bias), axis=-1)
    mixed = b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    mixed = b.op("Reshape", mixed, b.ints(0, 0, heads * size))
    y = b.linear(mixed, f"{name}.attention.output.dense")
    x = b.layer_norm(b.op("Add", y, x), f"{name}.attention.output.LayerNorm", eps)
    h = b.linear(x, f"{name}.intermediate.dense")
    erf = b.op("Erf", b.op("Div", h, b.const(np.float32(2**0.5))))
    h = b.op(
        "Mul", b.op("Mul", h, b.op("Add", erf, b.const(np.float32(1)))), b.const(np.float32(0.5))
    )
    y = b.linear(h, f"{name}.output.dense")
    return b.layer_norm(b.op("Add", y, x), f"{name}.output.LayerNorm", eps)


def build_matmul(side: int, target: Path) -> None:
    """One product of two square matrices."""
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [side, side]) for n in ("a", "b", "c")
    ]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "matmul", infos[:2], infos[2:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), target)
