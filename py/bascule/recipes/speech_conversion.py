"""Convert a CTranslate2 folder of a speech model to a Hugging Face folder: `bascule convert`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import InputError, SetupError
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import SpeechConfig
from bascule.models.table import family_of_config
from bascule.models.tensors import compare_tensors
from bascule.recipes.speech import GENERATION, read_converted
from bascule.tasks.speech_aligner import read_heads
from bascule.tasks.speech_tokens import SpeechTokens, read_speech_tokens
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from bascule.weights.names import MODEL_BIN
from bascule.weights.safetensors_writer import write_safetensors
from bascule.weights.source import Source
from bascule.weights.stream import WHOLE

# Hugging Face's names of the data types of a config.json.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


async def convert_speech(source: Source, target: Path, notify: ProgressCallback) -> None:
    """Write the model of a CTranslate2 folder as a Hugging Face folder, which transformers reads.

    The folder appears only when it is complete. Weights keep their data types and are copied 4 MiB
    at a time. InputError for another kind of folder or a target that is not empty, SetupError for
    one that cannot be written, other errors as `read_recipe`.
    """
    _check_free(target)
    place = source.location
    settings = json_object(await source.read("config.json"), f"{place}/config.json")
    family = family_of_config(settings, place)
    if "model_type" in settings or not isinstance(family, SpeechFamily):
        result = f"{place}, whose config.json is Hugging Face's"
        raise InputError("convert", "a CTranslate2 folder", result, hint="It loads as it is.")
    config, tensors = await read_converted(source, family)
    compare_tensors(family.tensors(config), tensors, family.ignored, place)
    tokenizer = await source.read("tokenizer.json")
    vocabulary = read_folder_vocabulary(TokenizerFiles(place, tokenizer, bare=True))
    tokens = read_speech_tokens(vocabulary, config.vocabulary, settings, place)
    read_heads(settings, config, place)
    files = {**family.settings_files(config), GENERATION: _generation(settings, config, tokens)}
    widest = max(tensors.values(), key=lambda tensor: tensor.nbytes)
    ids = _special_ids(tokens)
    files["config.json"] = {**files["config.json"], **ids, "torch_dtype": _DTYPES[widest.dtype]}

    async def read(offset: int, count: int) -> bytes:
        return await source.read(MODEL_BIN, offset, count)

    def written(done: int, total: int) -> None:
        notify(Progress("convert", done, total))

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
            fresh = Path(scratch) / "model"
            fresh.mkdir()
            for name, fields in files.items():
                (fresh / name).write_text(json.dumps(fields, indent=2) + "\n")
            (fresh / "tokenizer.json").write_bytes(tokenizer)
            await write_safetensors(fresh / WHOLE, tensors.values(), read, written)
            if target.exists():
                target.rmdir()
            fresh.rename(target)
    except OSError as error:
        problem = f"{target} cannot be written ({error.strerror or error})."
        raise SetupError(problem, hint="Is the folder yours, and is there room?") from None


def _check_free(target: Path) -> None:
    try:
        occupied = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise SetupError(f"{target} cannot be read ({error.strerror or error}).") from None
    if occupied:
        hint = "Remove it first, or name another."
        raise InputError("convert", "a new folder", f"{target}, which is there", hint=hint)


def _special_ids(tokens: SpeechTokens) -> dict[str, int]:
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokens.end)
    return {**ids, "decoder_start_token_id": tokens.start}


def _generation(
    settings: Mapping[str, Any], config: SpeechConfig, tokens: SpeechTokens
) -> dict[str, Any]:
    """Return the generation_config.json: control tokens by the tokenizer, the rest as it was."""
    return {
        **_special_ids(tokens),
        "is_multilingual": bool(tokens.languages),
        "lang_to_id": {f"<|{code}|>": token for code, token in tokens.languages.items()},
        "task_to_id": dict(tokens.tasks),
        "no_timestamps_token_id": tokens.no_timestamps,
        "max_initial_timestamp_index": 50,
        "max_length": config.decoder.places,
        "return_timestamps": False,
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
        "alignment_heads": settings.get("alignment_heads"),
    }
