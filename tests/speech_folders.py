"""Folders of a tiny Whisper with random weights and a tokenizer: Hugging Face's, CTranslate2's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from bascule.text.vocabulary import BYTE_OF
from tests.goldens.families import Case, Tensors
from tests.goldens.whisper import CONFIG, whisper
from tests.models.test_whisper_ctranslate2 import variables, written

_NAMES = "startoftranscript en de fr translate transcribe startoflm startofprev nospeech"
CONTROL = ["<|endoftext|>", *(f"<|{name}|>" for name in (*_NAMES.split(), "notimestamps"))]
END, START, FIRST = 256, 257, 256 + len(CONTROL)  # FIRST is the timestamp of 0 s
N_ROWS = FIRST + 42
# 82 frames of 10 ms.
WINDOW_S = 0.82
NEVER, NOT_FIRST = [7, 9], [32, END]


def tokenizer() -> dict[str, Any]:
    """One token a byte, and the control tokens."""
    vocab = dict(BYTE_OF)
    added = [{"id": END + at, "content": text, "special": True} for at, text in enumerate(CONTROL)]
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    pre = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    twice = [{"SpecialToken": {"id": text}} for text in CONTROL[1:3]]
    return {
        "added_tokens": added,
        "model": model,
        "pre_tokenizer": pre,
        "decoder": {"type": "ByteLevel"},
        "post_processor": {"type": "TemplateProcessing", "single": [*twice, {"Sequence": {}}]},
    }


def hugging_face(folder: Path, *, multilingual: bool = True) -> Path:
    """config.json, generation_config.json, tokenizer.json and model.safetensors."""
    folder.mkdir(parents=True)
    config = {**CONFIG, "vocab_size": N_ROWS, "suppress_tokens": NEVER}
    config["begin_suppress_tokens"] = NOT_FIRST
    made = Tensors(Case("whisper", config, whisper, lambda: None, seed=22))  # type: ignore[arg-type]
    whisper(made)
    save_file(made.found, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"is_multilingual": multilingual}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    return folder


def ctranslate2(folder: Path) -> Path:
    """The same weights in a model.bin, of a model that knows English alone."""
    made = hugging_face(folder)
    tensors = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    (made / "generation_config.json").unlink()
    (made / "model.bin").write_bytes(written(variables(tensors)))
    config = {"suppress_ids": NEVER, "suppress_ids_begin": NOT_FIRST, "lang_ids": []}
    (made / "config.json").write_text(json.dumps(config))
    return made
