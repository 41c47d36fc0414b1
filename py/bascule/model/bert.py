"""BERT (Devlin et al. 2019) as a sentence encoder.

Reads in the order of the computation. B texts of at most T tokens, hidden size C, inner size I.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.model.layers import matrix
from bascule.model.sentence_modules import (
    DEFAULT_MODULES,
    SENTENCE,
    TOKENS,
    Module,
    Recording,
    skips_prompts,
)
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# Hugging Face's names of activations, and ours.
_ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh"}
_LARGEST = 1 << 24
# What holds a plain encoder's weights; heads of these are ignored, as transformers' BertModel does.
_ENCODERS = ("BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForNextSentencePrediction")


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes of a model, from its config.json."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    activation: str
    eps: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: str) -> BertConfig:
        """Check and read a Hugging Face config.json of model_type "bert".

        ModelFileError if it is not sound, UnsupportedModelError if it is no such BERT.
        """
        _check_encoder(config, file)
        activation = config.get("hidden_act", "gelu")
        if not isinstance(activation, str):
            raise ModelFileError(file, f"hidden_act is {_short(activation)}, expected a name")
        if activation not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            told = f"hidden_act is {activation[:40]!r}, and this version runs {known}"
            raise UnsupportedModelError(file, told)
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise UnsupportedModelError(file, "its position embeddings are not absolute")
        eps = config.get("layer_norm_eps", 1e-12)
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
            raise ModelFileError(file, f"layer_norm_eps is {_short(eps)}, expected a small number")
        made = cls(
            vocabulary=_size(config, "vocab_size", file),
            hidden=_size(config, "hidden_size", file),
            layers=_size(config, "num_hidden_layers", file, largest=1000),
            heads=_size(config, "num_attention_heads", file),
            inner=_size(config, "intermediate_size", file),
            positions=_size(config, "max_position_embeddings", file),
            activation=_ACTIVATIONS[activation],
            eps=float(eps),
        )
        if made.hidden % made.heads:
            raise ModelFileError(
                file, f"hidden_size {made.hidden} does not divide by {made.heads} heads"
            )
        return made


def _size(config: Mapping[str, Any], key: str, file: str, largest: int = _LARGEST) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        told = f"{key} is {_short(value)}, expected a whole number 1 to {largest:,}"
        raise ModelFileError(file, told)
    return value


def _short(value: object) -> str:
    return repr(value)[:40]


def _check_encoder(config: Mapping[str, Any], file: str) -> None:
    """UnsupportedModelError for a BERT that gives something else than a text's tokens."""
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if config.get(key, False) is not False:
            hint = "Take a sentence encoder, such as all-MiniLM-L6-v2."
            raise UnsupportedModelError(file, f"its {key} is {_short(config[key])}", hint=hint)
    listed = config.get("architectures") or ["BertModel"]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ModelFileError(file, f"architectures is {_short(listed)}, expected names")
    for name in listed:
        if name not in _ENCODERS:
            _refuse_head(name, file)


def _refuse_head(name: str, file: str) -> None:
    told = f"its architecture is {name[:60]!r}, whose head is not run"
    if name == "BertForSequenceClassification":
        told = f"it is a classifier or cross-encoder ({name}): it rates texts and embeds none"
    hint = "Take a sentence encoder, such as all-MiniLM-L6-v2, to embed texts."
    raise UnsupportedModelError(file, told, hint=hint)


def sentence_encoder(
    config: BertConfig,
    batch: Dim,
    tokens: Dim,
    *,
    modules: Sequence[Module] = DEFAULT_MODULES,
    weights: DType = "f32",
) -> Graph:
    """Record ids (B, T) u32 and lengths (B) u32 -> embedding (B, D) f32.

    `modules` follow the encoder. Where one leaves out prompts, `skipped` (B) u32 is a third input:
    the tokens of each text's prompt. `weights` is what matrices are stored as, where their rows
    come out even: all but the position and type tables, which are added whole.
    """
    graph = Graph("bert")
    ids = graph.input("ids", (batch, tokens), "u32")
    lengths = graph.input("lengths", (batch,), "u32")
    skips = skips_prompts(tuple(modules))
    skipped = graph.input("skipped", (batch,), "u32") if skips else None

    x = _embeddings(graph, config, ids, weights)  # (B, T, C)
    for layer in range(config.layers):
        x = _encoder_layer(graph, config, x, lengths, f"encoder.layer.{layer}", weights)

    recording = Recording(graph, {TOKENS: x}, lengths, skipped, weights)
    for module in modules:
        module.record(recording)
    graph.output(recording.features[SENTENCE])  # (B, D)
    return graph


def _embeddings(graph: Graph, config: BertConfig, ids: Value, weights: DType) -> Value:
    c = config.hidden
    words = matrix(graph, "embeddings.word_embeddings.weight", (config.vocabulary, c), weights)
    positions = graph.parameter("embeddings.position_embeddings.weight", (config.positions, c))
    # One text at a time is embedded, so every token is of type 0: the table's first row.
    name = "embeddings.token_type_embeddings.weight"
    kind = graph.parameter("token_type_0", (c,), name, rows=1)
    x = graph.call("embedding", ids, words, positions, kind)  # (B, T, C)
    return _layer_norm(graph, config, x, "embeddings.LayerNorm")


def _encoder_layer(
    graph: Graph, config: BertConfig, x: Value, lengths: Value, name: str, weights: DType
) -> Value:
    c = config.hidden
    heads = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    tensors = [f"{head}.weight" for head in heads]
    weight = matrix(graph, f"{name}.qkv.weight", (3 * c, c), weights, *tensors)
    bias = graph.parameter(f"{name}.qkv.bias", (3 * c,), *(f"{h}.bias" for h in heads))
    qkv = graph.call("linear", x, weight, bias, activation="none")  # (B, T, 3C)
    mixed = graph.call("attention", qkv, lengths, heads=config.heads)  # (B, T, C)
    y = _linear(graph, mixed, c, f"{name}.attention.output.dense", weights)
    x = _layer_norm(graph, config, graph.call("add", y, x), f"{name}.attention.output.LayerNorm")

    y = _linear(graph, x, config.inner, f"{name}.intermediate.dense", weights)  # (B, T, I)
    y = graph.call("activate", y, kind=config.activation)
    y = _linear(graph, y, c, f"{name}.output.dense", weights)  # (B, T, C)
    return _layer_norm(graph, config, graph.call("add", y, x), f"{name}.output.LayerNorm")


def _linear(graph: Graph, x: Value, n: int, name: str, weights: DType) -> Value:
    k = x.shape[-1]
    assert isinstance(k, int)  # only B and T are Dims
    weight = matrix(graph, f"{name}.weight", (n, k), weights)
    bias = graph.parameter(f"{name}.bias", (n,))
    return graph.call("linear", x, weight, bias, activation="none")


def _layer_norm(graph: Graph, config: BertConfig, x: Value, name: str) -> Value:
    weight = graph.parameter(f"{name}.weight", (config.hidden,))
    bias = graph.parameter(f"{name}.bias", (config.hidden,))
    return graph.call("layer_norm", x, weight, bias, eps=config.eps)
