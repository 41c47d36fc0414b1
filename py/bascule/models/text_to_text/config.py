"""The config of T5 models, from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.base.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import MAX_LAYERS, Settings

# The most tokens of a source or a target; the scores of all heads grow with their square.
MAX_TOKENS = 4096
_MAX_BUCKETS = 1 << 10
# The activation of a feed-forward layer, by the last word of `feed_forward_proj`.
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "gelu_new": "gelu_tanh"}


@dataclass(frozen=True, slots=True)
class T5Config:
    """Checked config of an encoder-decoder.

    `untied`: the output layer has its own matrix. `scales`: its input is scaled by 1 /
    sqrt(hidden). `weights` is the dtype of stored matrices.
    """

    vocabulary: int
    hidden: int
    inner: int
    heads: int
    size: int
    encoder_layers: int
    decoder_layers: int
    buckets: int
    max_distance: int
    eps: float
    activation: str
    gated: bool
    scales: bool
    start: int
    positions: int
    untied: bool = False
    weights: DType = "f32"

    @property
    def width(self) -> int:
        """Numbers of a query of all heads."""
        return self.heads * self.size


def read_config(config: Mapping[str, Any], file: str) -> T5Config:
    """Check and read a config.json.

    ModelFileError if it is unsound, UnsupportedModelError for an unsupported setting.
    """
    read = Settings(config, file)
    read.expect({"is_encoder_decoder": True, "quantization_config": None})
    projection = str(config.get("feed_forward_proj", "relu"))[:40]
    gated, name = projection.startswith("gated-"), projection.removeprefix("gated-")
    name = "gelu_new" if projection == "gated-gelu" else name
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(file, f"its feed_forward_proj is {projection}")
    layers = read.size("num_layers", largest=MAX_LAYERS)
    buckets = read.size("relative_attention_num_buckets", 32, _MAX_BUCKETS)
    distance = read.size("relative_attention_max_distance", 128)
    if buckets % 4 or distance <= buckets // 2:
        problem = f"{buckets} buckets of relative attention do not fit the distance {distance}"
        raise ModelFileError(file, problem)
    size, vocabulary = read.size("d_kv"), read.size("vocab_size")
    if size % 4:  # kernels read keys by fours
        raise ModelFileError(file, f"d_kv is {size}, expected a multiple of 4")
    return T5Config(
        vocabulary=vocabulary,
        hidden=read.size("d_model"),
        inner=read.size("d_ff"),
        heads=read.size("num_heads"),
        size=size,
        encoder_layers=layers,
        decoder_layers=read.size("num_decoder_layers", layers, MAX_LAYERS),
        buckets=buckets,
        max_distance=distance,
        eps=read.number("layer_norm_epsilon", 1e-6, 0.0, 1.0),
        activation=_ACTIVATIONS[name],
        gated=gated,
        scales=_scales(config),
        start=read.integer("decoder_start_token_id", 0, 0, vocabulary - 1),
        positions=read.size("n_positions", 512, MAX_TOKENS),
    )


def _scales(config: Mapping[str, Any]) -> bool:
    """Whether the output is scaled: by transformers 5's setting, or in older files if tied."""
    stated = config.get("scale_decoder_outputs")
    return stated is True if stated is not None else config.get("tie_word_embeddings") is not False
