"""Which models a folder has, for pages that let a visitor choose."""

from __future__ import annotations

from pathlib import Path

from bascule.base.json_object import parse_json

_MOST_NBYTES = 1 << 20  # of a config.json


def list_models(folder: Path) -> list[dict[str, str]]:
    """Name and kind ("sentence-encoder", "language-model") of each model in the folder."""
    found: list[dict[str, str]] = []
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return found
    for path in folders:
        if kind := _kind(path):
            found.append({"name": path.name, "kind": kind})
    return found


def _kind(folder: Path) -> str:
    """Its kind by its files; empty for a folder that is no model's."""
    if (folder / "model.gguf").is_file():
        return "language-model"
    config = folder / "config.json"
    try:
        if not config.is_file() or config.stat().st_size > _MOST_NBYTES:
            return ""
        made_for = parse_json(config.read_bytes())["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return "sentence-encoder" if (folder / "modules.json").is_file() else ""
    return "language-model" if str(made_for).endswith("ForCausalLM") else "sentence-encoder"
