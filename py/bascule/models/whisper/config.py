"""The settings of Whisper models, from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.errors import ModelFileError
from bascule.models.settings import MAX_LAYERS, Settings
from bascule.models.speech.config import SpeechConfig, StackConfig

# Limits of encoder and decoder: larger ones are not Whisper.
_MAX_PLACES = 1 << 15
_MAX_TOKENS = 512  # what the table of angles in `graph` is made for
_MAX_BANDS = 1 << 10
# Settings whose other values would change the computation.
_PLAIN: Mapping[str, Any] = {
    "model_type": "whisper",
    "activation_function": "gelu",
    "scale_embedding": False,
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "quantization_config": None,
}


def read_config(config: Mapping[str, Any], file: str) -> SpeechConfig:
    """Check and read a config.json.

    ModelFileError if it is unsound, UnsupportedModelError for an unsupported setting.
    """
    read = Settings(config, file)
    read.expect(_PLAIN)
    hidden = read.size("d_model")

    def half(name: str, places: str, default: int, maximum: int) -> StackConfig:
        heads = read.size(f"{name}_attention_heads")
        # Kernels read keys of a head by fours.
        if hidden % heads or hidden // heads % 4:
            raise ModelFileError(file, f"d_model {hidden} does not fit {heads} {name} heads")
        return StackConfig(
            layers=read.size(f"{name}_layers", largest=MAX_LAYERS),
            heads=heads,
            inner=read.size(f"{name}_ffn_dim"),
            places=read.size(places, default, maximum),
        )

    return SpeechConfig(
        vocabulary=read.size("vocab_size"),
        hidden=hidden,
        bands=read.size("num_mel_bins", 80, _MAX_BANDS),
        encoder=half("encoder", "max_source_positions", 1500, _MAX_PLACES),
        decoder=half("decoder", "max_target_positions", 448, _MAX_TOKENS),
    )


def settings_files(config: SpeechConfig) -> dict[str, Mapping[str, Any]]:
    """Return the config.json that `read_config` reads, and transformers' feature extractor's."""
    fields: dict[str, Any] = {
        **{name: value for name, value in _PLAIN.items() if value is not None},
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": config.vocabulary,
        "d_model": config.hidden,
        "num_mel_bins": config.bands,
        "max_source_positions": config.encoder.places,
        "max_target_positions": config.decoder.places,
    }
    for name, half in (("encoder", config.encoder), ("decoder", config.decoder)):
        fields[f"{name}_layers"] = half.layers
        fields[f"{name}_attention_heads"] = half.heads
        fields[f"{name}_ffn_dim"] = half.inner
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config.bands,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": max(1, config.frames // 100),
    }
    return {"config.json": fields, "preprocessor_config.json": extractor}
