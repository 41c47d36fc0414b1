"""The config of decoders with rotary positions and RMS norms, like Llama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any, Literal

from bascule.base.arguments import is_number
from bascule.base.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import MAX_LAYERS, Settings

MAX_CONTEXT = 1 << 20
_MAX_HEAD = 1 << 12
Pairs = Literal["adjacent", "halves"]
# Settings of a config.json that must have these values.
_PLAIN: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Checked config of a decoder; `types` are the types of its tensors, by the graph's names.

    `pairs`: which rows of q and k rotate together, neighbours or those half a head apart. `window`
    limits how far back a token attends (0: to the start), except in `full_layers`. `factors` (D /
    2) divide the rotary frequencies. A model without `rotary` angles has `context` learned
    positions. Matrices of a layer's `columns` are stored (K, N), column by column. Attention's
    `scale` is 1 / sqrt(D) if it is 0; scores and logits are capped softly unless their caps are 0.
    Norms multiply by `norm_plus` + weight.
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    size: int
    inner: int
    context: int
    theta: float
    eps: float
    types: Mapping[str, DType]
    pairs: Pairs
    window: int = 0
    factors: tuple[float, ...] | None = None
    rotary: bool = True
    columns: frozenset[str] = frozenset()
    full_layers: frozenset[int] = frozenset()
    activation: str = "silu"
    scale: float = 0.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    embedding_scale: float = 1.0
    norm_plus: float = 0.0

    @property
    def cache_width(self) -> int:
        """Numbers of a layer's cache per token: G keys and G values."""
        return 2 * self.kv_heads * self.size


def read_decoder_config(
    config: Mapping[str, Any],
    file: str,
    *,
    plain: Mapping[str, Any] = _PLAIN,
    defaults: Mapping[str, Any] | None = None,
) -> DecoderConfig:
    """Check and read a Hugging Face config.json.

    It does not describe the tensors: `types` is empty. `plain` are the settings that must have
    these values, `defaults` those of the family's class in transformers that differ from Llama's.
    ModelFileError if it is unsound, UnsupportedModelError for another kind of decoder.
    """
    stated = {key: value for key, value in config.items() if value is not None}
    read = Settings({**(defaults or {}), **stated}, file)
    read.expect(plain)
    hidden, heads = read.size("hidden_size"), read.size("num_attention_heads")
    kv_heads = read.size("num_key_value_heads", heads)
    size = read.size("head_dim", hidden // heads)
    even = "head_dim" in read or hidden % heads == 0
    check_heads(heads, kv_heads, size, file, even=even)
    rotary = Settings({**stated, **rotary_settings(config, file)}, file)
    theta = rotary.number("rope_theta", 10_000.0, 1.0, 1e12)
    if (part := rotary.number("partial_rotary_factor", 1.0, 0.0, 1.0)) != 1:
        raise UnsupportedModelError(file, f"its partial_rotary_factor is {part}")
    return DecoderConfig(
        vocabulary=read.size("vocab_size"),
        hidden=hidden,
        layers=read.size("num_hidden_layers", largest=MAX_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        size=size,
        inner=read.size("intermediate_size"),
        context=read.size("max_position_embeddings", 2048, largest=MAX_CONTEXT),
        theta=theta,
        eps=read.number("rms_norm_eps", 1e-6, 0.0, 1.0),
        types={},
        pairs="halves",
        factors=rotary_factors(config, size, theta, file),
    )


def check_heads(heads: int, kv_heads: int, size: int, file: str, *, even: bool) -> None:
    """ModelFileError for impossible heads; `even`: they divide the hidden size, or need not."""
    if heads % kv_heads or size % 4 or size > _MAX_HEAD or not even:
        problem = f"{heads} heads over {kv_heads} of size {size} do not fit together"
        raise ModelFileError(file, problem)


def read_unwindowed_config(
    config: Mapping[str, Any], file: str, *, defaults: Mapping[str, Any]
) -> DecoderConfig:
    """As `read_decoder_config`, for a decoder whose window is off by default."""
    result = read_decoder_config(config, file, defaults=defaults)
    # A window has no effect unless it is switched on, and then only in some layers.
    Settings(config, file).expect({"use_sliding_window": False})
    expect_full_attention(config, file)
    return result


def expect_full_attention(config: Mapping[str, Any], file: str) -> None:
    """UnsupportedModelError if layers attend differently."""
    layers = config.get("layer_types")
    if layers is None:
        return
    if not isinstance(layers, list):
        raise ModelFileError(file, f"layer_types is {str(layers)[:40]}, expected names")
    if any(layer != "full_attention" for layer in layers):
        raise UnsupportedModelError(file, f"its layer_types are {str(layers)[:60]}")


def rotary_settings(config: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """Return the rotary settings of a config.json, under either key; ModelFileError."""
    # Newer files have all of it in the first, older ones only the scaling, in the second.
    result = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(result, dict):
        raise ModelFileError(file, "its rope_scaling is not a JSON object")
    return result


def rotary_factors(
    config: Mapping[str, Any], size: int, theta: float, file: str
) -> tuple[float, ...] | None:
    """Return what divides the rotary frequencies (D / 2); None if nothing does.

    "linear" stretches all positions alike, "llama3" those of long waves (Llama 3.1's rule, as in
    transformers' modeling_rope_utils.py). UnsupportedModelError for other kinds, ModelFileError for
    impossible numbers.
    """
    settings = rotary_settings(config, file)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise UnsupportedModelError(file, f"its rope scaling is {str(kind)[:40]!r}")
    factor = _number(settings, "factor", file)
    half = size // 2
    if kind == "linear":
        return (factor,) * half
    low, high = (_number(settings, f"{end}_freq_factor", file) for end in ("low", "high"))
    context = _number(settings, "original_max_position_embeddings", file)
    if low >= high:
        raise ModelFileError(file, "its low_freq_factor is not below its high_freq_factor")
    return tuple(
        # Waves are counted in the original training context.
        _llama3_factor(context * theta ** (-i / half) / (2 * pi), low, high, factor)
        for i in range(half)
    )


def _llama3_factor(waves: float, low: float, high: float, factor: float) -> float:
    """Return the divisor of a frequency of that many waves: 1 from `high`, `factor` up to `low`."""
    share = min(max((waves - low) / (high - low), 0.0), 1.0)
    return 1 / ((1 - share) / factor + share)


def _number(fields: Mapping[str, Any], key: str, file: str) -> float:
    value = fields.get(key)
    if not is_number(value) or not 0 < value < 1e9:
        raise ModelFileError(file, f"its rope scaling's {key} is {str(value)[:40]}")
    return float(value)
