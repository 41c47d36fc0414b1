"""A tiny Whisper with random weights, as a Hugging Face folder that a test writes anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.goldens.families import Case, Tensors

C, VOCABULARY, START = 32, 131, 3
CONFIG: dict[str, Any] = {
    "model_type": "whisper",
    "vocab_size": VOCABULARY,
    "d_model": C,
    "num_mel_bins": 12,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "max_source_positions": 41,
    "max_target_positions": 40,
    "activation_function": "gelu",
    "scale_embedding": False,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": START,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
TEACHER = [START, 7, 77, 120, 9, 9, 0, 130, 41, 55, 100, 12]
N_GREEDY = 24
# Beam searches: the token that ends a text, beams, length penalty.
BEAMS = [(95, 2, 0.0), (95, 5, 1.0), (11, 2, 1.0), (11, 5, 0.0), (11, 5, 1.0), (87, 5, 1.0)]
N_BEAM_TOKENS = 16


def _layer(made: Tensors, name: str, inner: int, *, cross: bool) -> None:
    for attention in ("self_attn", "encoder_attn")[: 1 + cross]:
        made.norm(f"{name}.{attention}_layer_norm", C, bias=True)
        made.matrix(f"{name}.{attention}.k_proj", C, C)
        for part in "qv":
            made.linear(f"{name}.{attention}.{part}_proj", C, C)
        made.linear(f"{name}.{attention}.out_proj", C, C)
    made.norm(f"{name}.final_layer_norm", C, bias=True)
    made.linear(f"{name}.fc1", inner, C)
    made.linear(f"{name}.fc2", C, inner)


def whisper(made: Tensors) -> None:
    """Tensors of Whisper."""
    config = made.config
    for name, channels in (("conv1", config["num_mel_bins"]), ("conv2", C)):
        made.linear(f"model.encoder.{name}", C, 3 * channels)
        weight = made.found[f"model.encoder.{name}.weight"]
        made.found[f"model.encoder.{name}.weight"] = weight.reshape(C, channels, 3)
    made.matrix("model.encoder.embed_positions", config["max_source_positions"], C, 3.0)
    made.matrix("model.decoder.embed_tokens", config["vocab_size"], C, 1.5)
    made.matrix("model.decoder.embed_positions", config["max_target_positions"], C, 8.0)
    for part in ("encoder", "decoder"):
        for layer in range(config[f"{part}_layers"]):
            name = f"model.{part}.layers.{layer}"
            _layer(made, name, config[f"{part}_ffn_dim"], cross=part == "decoder")
        made.norm(f"model.{part}.layer_norm", C, bias=True)


def build(folder: Path) -> Path:
    """Write the model's folder."""
    folder.mkdir(parents=True)
    made = Tensors(Case("whisper", CONFIG, whisper, lambda: None, seed=21))  # type: ignore[arg-type]
    whisper(made)
    save_file(made.found, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def spectrum() -> np.ndarray[Any, Any]:
    """What the model hears, (bands, frames) float32."""
    rng = np.random.default_rng(8)
    shape = (CONFIG["num_mel_bins"], 2 * CONFIG["max_source_positions"])
    return rng.standard_normal(shape).astype(np.float32)
