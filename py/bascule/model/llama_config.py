"""What a Llama's files say of its sizes, none of which is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from bascule.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.model.kinds import unsupported_type

MOST_CONTEXT = 1 << 20
_LARGEST = 1 << 24
_MOST_LAYERS = 1000
# Tensors of a file that no program reads as a weight.
ROPE_FACTORS = "rope_freqs.weight"
TABLE = "token_embd.weight"
# A tied model has none: the embedding serves for it.
OUTPUT = "output.weight"
_PARTS = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
)
# What a config.json may say of a Llama, and `decoder` takes for granted.
_PLAIN: Mapping[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}


def tensor_names(layers: int) -> Iterator[str]:
    """All that a model may have, by GGUF's names."""
    yield from (TABLE, "output_norm.weight", OUTPUT)
    for layer in range(layers):
        yield from (f"blk.{layer}.{part}.weight" for part in _PARTS)


def rotary_settings(config: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    """What a config.json says of rotary angles under one key or the other; ModelFileError."""
    # Newer files have all of it in the first, older ones the scaling alone in the second.
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(told, dict):
        raise ModelFileError(file, "its rope_scaling is no JSON object")
    return told


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes of a model; `types` are the types of its tensors, by GGUF's names.

    `pairs`: GGUF files of this family keep the rows of q and k so that those which turn together
    stand side by side, Hugging Face's keep them half a head apart.
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
    pairs: Literal["adjacent", "halves"] = "adjacent"

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], types: Mapping[str, DType], rows: int, file: str
    ) -> LlamaConfig:
        """Check and read what a GGUF header says; `rows` are those of its token embedding.

        ModelFileError if it is not sound, UnsupportedModelError if it is no such Llama.
        """
        kind = metadata.get("general.architecture")
        if kind != "llama":
            raise unsupported_type(file, "architecture", kind)
        read = _Reader(metadata, file)
        hidden = read.size("llama.embedding_length")
        heads = read.size("llama.attention.head_count")
        kv_heads = read.size("llama.attention.head_count_kv", heads)
        size = read.size("llama.attention.key_length", hidden // heads)
        if heads % kv_heads or size % 4 or (hidden // heads != size and hidden % heads):
            told = f"{heads} heads over {kv_heads} of size {size}"
            raise ModelFileError(file, f"{told} do not fit together")
        for key, expected in (
            ("llama.attention.value_length", size),
            ("llama.rope.dimension_count", size),
        ):
            if read.size(key, expected) != expected:
                raise UnsupportedModelError(file, f"{key} is not the head size {size}")
        scaling = metadata.get("llama.rope.scaling.type", "none")
        if scaling != "none":
            raise UnsupportedModelError(file, f"its rope scaling is {str(scaling)[:40]!r}")
        made = cls(
            vocabulary=rows,
            hidden=hidden,
            layers=read.size("llama.block_count", largest=_MOST_LAYERS),
            heads=heads,
            kv_heads=kv_heads,
            size=size,
            inner=read.size("llama.feed_forward_length"),
            context=read.size("llama.context_length", largest=MOST_CONTEXT),
            theta=read.number("llama.rope.freq_base", 10_000.0, 1.0, 1e12),
            eps=read.number("llama.attention.layer_norm_rms_epsilon", 1e-5, 0.0, 1.0),
            types=types,
        )
        made._check_tensors(file)
        return made

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: str) -> LlamaConfig:
        """Check and read a Hugging Face config.json of model_type "llama"; errors as above.

        It tells nothing of the tensors: `llama_folder.folder_config` gives their types.
        """
        given = {key: value for key, value in config.items() if value is not None}
        for key, expected in _PLAIN.items():
            if given.get(key, expected) != expected:
                raise UnsupportedModelError(file, f"its {key} is {str(given[key])[:40]}")
        read = _Reader(given, file)
        hidden, heads = read.size("hidden_size"), read.size("num_attention_heads")
        kv_heads = read.size("num_key_value_heads", heads)
        size = read.size("head_dim", hidden // heads)
        if heads % kv_heads or size % 4 or ("head_dim" not in given and hidden % heads):
            told = f"{heads} heads over {kv_heads} of size {size} do not fit together"
            raise ModelFileError(file, told)
        rotary = _Reader({**given, **rotary_settings(config, file)}, file)
        return cls(
            vocabulary=read.size("vocab_size"),
            hidden=hidden,
            layers=read.size("num_hidden_layers", largest=_MOST_LAYERS),
            heads=heads,
            kv_heads=kv_heads,
            size=size,
            inner=read.size("intermediate_size"),
            context=read.size("max_position_embeddings", 2048, largest=MOST_CONTEXT),
            theta=rotary.number("rope_theta", 10_000.0, 1.0, 1e12),
            eps=read.number("rms_norm_eps", 1e-6, 0.0, 1.0),
            types={},
            pairs="halves",
        )

    def _check_tensors(self, file: str) -> None:
        """No tensor may be missing, and none left out: a bias not read gives wrong numbers.

        Names are compared before any program is made, whatever number of layers a header claims.
        """
        for name in tensor_names(self.layers):
            if name not in self.types and name != OUTPUT:
                raise ModelFileError(file, f"it lacks the tensor {name!r} of its metadata")
        unread = sorted(self.types.keys() - {*tensor_names(self.layers), ROPE_FACTORS})
        if unread:
            raise UnsupportedModelError(file, f"it has tensor {unread[0]!r}, which is not known")

    @property
    def cache_width(self) -> int:
        """Numbers of a layer's cache for a token: G keys and G values."""
        return 2 * self.kv_heads * self.size


class _Reader:
    """Checked numbers of a file's metadata."""

    def __init__(self, metadata: Mapping[str, Any], file: str) -> None:
        self._metadata = metadata
        self._file = file

    def size(self, key: str, default: int | None = None, largest: int = _LARGEST) -> int:
        value = self._metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ModelFileError(
                self._file,
                f"{key} is {str(value)[:40]}, expected a whole number 1 to {largest:,}",
            )
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self._metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelFileError(self._file, f"{key} is {str(value)[:40]}, expected a number")
        if not (isfinite(value) and least <= value <= most):
            raise ModelFileError(self._file, f"{key} is {value}, expected {least} to {most}")
        return float(value)
