"""Errors for a missing file: which other files are there, and how to convert them."""

from __future__ import annotations

from pathlib import Path

from bascule.errors import BasculeError, FileMissingError, UnsupportedModelError
from bascule.weights.names import FOREIGN_VOCABULARIES, FOREIGN_WEIGHTS
from bascule.weights.source import UNLISTED_HINT, Source
from bascule.weights.stream import WHOLE

_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_LAYOUT = (
    "A model's folder has config.json, tokenizer.json and model.safetensors, or one model.gguf."
)
_SAVE = (
    "Convert it in Python: for an encoder SentenceTransformer(FOLDER).save_pretrained(NEW), for "
    "others transformers' AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)."
)
_SAVE_TOKENIZER = (
    "Convert it in Python: transformers' "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
)


async def explain_missing(source: Source, missing: FileMissingError) -> BasculeError:
    """Return an error that says what a folder has instead of the missing file."""
    file = missing.location.removeprefix(f"{source.location}/")
    if file == WHOLE:
        result = await _first(source, FOREIGN_WEIGHTS)
        if result:
            problem = f"its weights are in {result} alone, and this version reads {WHOLE}"
            return UnsupportedModelError(source.location, problem, hint=_SAVE)
    elif file == _TOKENIZER:
        result = await _first(source, FOREIGN_VOCABULARIES)
        if result:
            problem = f"its tokenizer is in {result} alone, and this version reads {_TOKENIZER}"
            return UnsupportedModelError(source.location, problem, hint=_SAVE_TOKENIZER)
    elif file == _CONFIG:
        named = _gguf_files(source.location)
        if named:
            hint = f"Load the file itself: {source.location}/{named[0]}"
            return FileMissingError(missing.location, hint=hint)
    else:
        return missing
    if missing.hint == UNLISTED_HINT:
        return missing
    return FileMissingError(missing.location, hint=_LAYOUT)


async def _first(source: Source, files: tuple[str, ...]) -> str:
    for file in files:
        try:
            await source.size(file)
        except FileMissingError:
            continue
        return file
    return ""


def _gguf_files(location: str) -> list[str]:
    """List the .gguf files of a local folder."""
    folder = Path(location)
    if "://" in location or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.glob("*.gguf") if path.is_file())
