"""The settings of ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.encoder.config import EncoderConfig, Keys, read_encoder_config
from bascule.models.settings import MAX_LAYERS, Settings

_ARCHITECTURES = ("ModernBertModel", "ModernBertForMaskedLM")
# The tables of angles have a row for each.
_MAX_POSITIONS = 1 << 16
_MAX_HEAD = 1 << 10
_FULL, _LOCAL = "full_attention", "sliding_attention"
_POOLINGS = ("cls", "mean")
_BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
_NO_BIASES: Mapping[str, Any] = dict.fromkeys(_BIASES, False)
# The defaults of transformers' ModernBertConfig, by the kind of a layer.
_THETAS = {_FULL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}


@dataclass(frozen=True, slots=True)
class ModernConfig(EncoderConfig):
    """Checked config: which layers are `local`, and see tokens less than `window` away.

    `theta` and `local_theta` are the bases of the two kinds' rotary angles; `pooling` and
    `head_activation` are those of classifiers.
    """

    local: tuple[bool, ...] = ()
    window: int = 0
    theta: float = 0.0
    local_theta: float = 0.0
    pooling: str = "cls"
    head_activation: str = "gelu"


def read_config(config: Mapping[str, Any], file: str) -> ModernConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    result, head = (
        read_encoder_config(config, file, _ARCHITECTURES, Keys(activation=f"{part}_activation"))
        for part in ("hidden", "classifier")
    )
    read = Settings(config, file)
    read.expect(_NO_BIASES)
    size = result.hidden // result.heads
    if size % 2 or size > _MAX_HEAD:
        raise ModelFileError(file, f"{result.heads} heads of size {size} cannot be rotated")
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in _POOLINGS:
        problem = f"its classifier_pooling is {str(pooling)[:40]!r}"
        raise UnsupportedModelError(file, problem)
    sizes = {name: getattr(result, name) for name in EncoderConfig.__slots__}
    sizes["positions"] = read.size("max_position_embeddings", largest=_MAX_POSITIONS)
    return replace(
        ModernConfig(**sizes),
        eps=read.number("norm_eps", 1e-5, 0.0, 0.5),
        token_types=False,
        local=_local_layers(config, result.layers, file),
        # This many tokens on either side, and the token itself.
        window=read.size("local_attention", 128) // 2 + 1,
        theta=_theta(config, _FULL, file),
        local_theta=_theta(config, _LOCAL, file),
        pooling=str(pooling),
        head_activation=head.activation,
    )


def _local_layers(config: Mapping[str, Any], layers: int, file: str) -> tuple[bool, ...]:
    """Read which layers are local: from a list of kinds, or from the interval of global layers."""
    kinds = config.get("layer_types")
    if kinds is None:
        every = Settings(config, file).size("global_attn_every_n_layers", 3, MAX_LAYERS)
        return tuple(bool(layer % every) for layer in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ModelFileError(file, f"layer_types is {str(kinds)[:40]}, expected {layers} names")
    for kind in kinds:
        if kind not in (_FULL, _LOCAL):
            raise UnsupportedModelError(file, f"its layer_types have {str(kind)[:40]!r}")
    return tuple(kind == _LOCAL for kind in kinds)


def _theta(config: Mapping[str, Any], kind: str, file: str) -> float:
    """Return the base of a kind's rotary angles, by kind in newer files, by name in older ones."""
    if config.get("rope_scaling") is not None:
        raise UnsupportedModelError(file, "its rotary angles are scaled (rope_scaling)")
    every = config.get("rope_parameters")
    every = {} if every is None else every
    mine = every.get(kind) if isinstance(every, dict) else every
    mine = {} if mine is None else mine
    if not isinstance(mine, dict):
        raise ModelFileError(file, f"rope_parameters of {kind} are not a JSON object")
    if mine.get("rope_type", "default") != "default":
        raise UnsupportedModelError(file, f"its rope_type is {str(mine['rope_type'])[:40]!r}")
    name, default = _THETAS[kind]
    older = Settings(config, file).number(name, default, 1.0, 1e12)
    return Settings(mine, file).number("rope_theta", older, 1.0, 1e12)
