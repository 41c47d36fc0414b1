"""The config of encoders that normalize after each part of a layer, like BERT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.base.arguments import is_number
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import MAX_LAYERS, Settings

# Hugging Face's names of activations, and ours.
_ACTIVATIONS = {
    **{"gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh"},
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
}
_HINT = "Use a sentence encoder, such as all-MiniLM-L6-v2, or a sequence classifier."


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Checked sizes of an encoder.

    A text has at most `positions` tokens; the first one has row `first_position` of the table of
    positions. Without `token_types` there is no table of them; with `pair_types`, its rows, the two
    texts of a pair have different types; with `relative_buckets` attention adds a bias by the
    distance of two tokens.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    activation: str
    eps: float
    first_position: int = 0
    token_types: bool = True
    pair_types: int = 0
    relative_buckets: int = 0


@dataclass(frozen=True, slots=True)
class Keys:
    """A config.json's names of sizes."""

    hidden: str = "hidden_size"
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"


def read_encoder_config(
    config: Mapping[str, Any], file: str, architectures: Sequence[str], keys: Keys | None = None
) -> EncoderConfig:
    """Check and read a config.json; `architectures` are supported ones, the plain one first.

    ModelFileError if it is unsound, UnsupportedModelError for an encoder of another kind.
    """
    keys = keys or Keys()
    _check_kind(config, file, architectures)
    activation = config.get(keys.activation, "gelu")
    if not isinstance(activation, str):
        problem = f"{keys.activation} is {_short(activation)}, expected a name"
        raise ModelFileError(file, problem)
    if activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        problem = f"{keys.activation} is {activation[:40]!r}, and this version runs {known}"
        raise UnsupportedModelError(file, problem)
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedModelError(file, "its position embeddings are not absolute")
    eps = config.get("layer_norm_eps", 1e-12)
    if not is_number(eps) or not 0 <= eps < 1:
        raise ModelFileError(file, f"layer_norm_eps is {_short(eps)}, expected a small number")
    read = Settings(config, file)
    result = EncoderConfig(
        vocabulary=read.size("vocab_size"),
        hidden=read.size(keys.hidden),
        layers=read.size(keys.layers, largest=MAX_LAYERS),
        heads=read.size(keys.heads),
        inner=read.size(keys.inner),
        positions=read.size("max_position_embeddings"),
        activation=_ACTIVATIONS[activation],
        eps=float(eps),
    )
    if result.hidden % result.heads:
        problem = f"{keys.hidden} {result.hidden} does not divide by {result.heads} heads"
        raise ModelFileError(file, problem)
    return result


def _short(value: object) -> str:
    return repr(value)[:40]


def _check_kind(config: Mapping[str, Any], file: str, architectures: Sequence[str]) -> None:
    """UnsupportedModelError for a model whose output is not a text's tokens."""
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if config.get(key, False) is not False:
            raise UnsupportedModelError(file, f"its {key} is {_short(config[key])}", hint=_HINT)
    listed = config.get("architectures") or architectures[:1]
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ModelFileError(file, f"architectures is {_short(listed)}, expected names")
    if not all(isinstance(name, str) for name in listed):
        raise ModelFileError(file, f"architectures is {_short(listed)}, expected names")
    for name in listed:
        if name not in architectures:
            _refuse_head(name, file)


def _refuse_head(name: str, file: str) -> None:
    problem = f"its architecture is {name[:60]!r}, whose head is not run"
    raise UnsupportedModelError(file, problem, hint=_HINT)
