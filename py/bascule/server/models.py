"""The models in a folder, for pages that let a visitor choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bascule.base.json_object import json_object
from bascule.errors import BasculeError
from bascule.models.family import (
    DecoderFamily,
    EncoderFamily,
    Family,
    ImageFamily,
    ImageTextFamily,
    SpeechFamily,
    TextToTextFamily,
    VoiceFamily,
)
from bascule.models.table import VOICE_FAMILIES, family_of_config
from bascule.recipes.classifier import is_classifier
from bascule.tasks.registry import ModelKind

_MAX_NBYTES = 1 << 20  # of a config.json
_KINDS: Mapping[type[Family], ModelKind] = {
    EncoderFamily: "sentence-encoder",
    DecoderFamily: "language-model",
    SpeechFamily: "speech-model",
    TextToTextFamily: "text-to-text",
    ImageFamily: "image-model",
    ImageTextFamily: "image-text-model",
    VoiceFamily: "voice-activity",
}


def list_models(folder: Path) -> list[dict[str, str]]:
    """Return name and kind of each supported model in the folder."""
    results: list[dict[str, str]] = []
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return results
    for path in folders:
        if kind := _kind(path):
            results.append({"name": path.name, "kind": kind})
    return results


def _kind(folder: Path) -> ModelKind | None:
    """Return the kind by the files; None if there is no supported model."""
    if (folder / "model.gguf").is_file():
        return "language-model"
    if any((folder / family.file).is_file() for family in VOICE_FAMILIES):
        return "voice-activity"
    config = folder / "config.json"
    try:
        if not config.is_file() or config.stat().st_size > _MAX_NBYTES:
            return None
        fields = json_object(config.read_bytes(), str(config))
        family = family_of_config(fields, str(config))
    except (OSError, BasculeError):
        return None
    if isinstance(family, EncoderFamily) and is_classifier(family, fields):
        return "classifier"
    return next(kind for base, kind in _KINDS.items() if isinstance(family, base))
