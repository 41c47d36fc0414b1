"""Llama (Touvron et al. 2023)."""

from __future__ import annotations

from functools import partial

from bascule.models.decoder.config import read_decoder_config
from bascule.models.decoder.files import llama_like
from bascule.models.decoder.metadata import read_decoder_metadata

LLAMA = llama_like(
    name="llama",
    examples="such as SmolLM2, TinyLlama, Llama 3",
    model_types=("llama",),
    config=read_decoder_config,
    # Its GGUF files reorder the rows of q and k so that those which rotate together are neighbours.
    architectures={"llama": partial(read_decoder_metadata, architecture="llama", pairs="adjacent")},
)
