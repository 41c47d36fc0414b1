"""The tensors of a Whisper folder, by its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from bascule.models.speech.config import SpeechConfig, StackConfig
from bascule.weights.safetensors import TensorInfo


def tensors(config: SpeechConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that both passes read, with their shapes in a Hugging Face folder."""
    c = config.hidden
    for name, channels in (("conv1", config.bands), ("conv2", c)):
        yield f"model.encoder.{name}.weight", (c, channels, 3)
        yield f"model.encoder.{name}.bias", (c,)
    yield "model.decoder.embed_tokens.weight", (config.vocabulary, c)
    for part, half in (("encoder", config.encoder), ("decoder", config.decoder)):
        yield f"model.{part}.embed_positions.weight", (half.places, c)
        yield from _pair(f"model.{part}.layer_norm", (c,))
        attentions = ("self_attn", "encoder_attn")[: 1 + (part == "decoder")]
        for layer in range(half.layers):
            yield from _layer(f"model.{part}.layers.{layer}", c, half, attentions)


def _layer(
    name: str, c: int, half: StackConfig, attentions: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for attention in attentions:
        yield from _pair(f"{name}.{attention}_layer_norm", (c,))
        yield f"{name}.{attention}.k_proj.weight", (c, c)
        for part in ("q_proj", "v_proj", "out_proj"):
            yield from _pair(f"{name}.{attention}.{part}", (c, c))
    yield from _pair(f"{name}.final_layer_norm", (c,))
    yield from _pair(f"{name}.fc1", (half.inner, c))
    yield from _pair(f"{name}.fc2", (c, half.inner))


def _pair(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def as_matrices(
    files: Mapping[str, Mapping[str, TensorInfo]],
) -> dict[str, dict[str, TensorInfo]]:
    """Return each file's tensors with at most two axes.

    A convolution's weight (N, C, 3) is the matrix (N, 3C) of its windows.
    """
    return {
        file: {t.name: t for t in map(_as_matrix, table.values())} for file, table in files.items()
    }


def _as_matrix(tensor: TensorInfo) -> TensorInfo:
    shape = tensor.shape if len(tensor.shape) < 3 else (tensor.shape[0], prod(tensor.shape[1:]))
    return replace(tensor, name=tensor.name, shape=shape)
