"""From a model's small files to the model: one recipe for each task and file format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from bascule.base.arguments import one_of
from bascule.base.dtypes import DType
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import FileMissingError, InputError
from bascule.models.decoder.graph import CacheDType
from bascule.models.family import (
    DecoderFamily,
    EncoderFamily,
    Family,
    ImageFamily,
    ImageTextFamily,
    SpeechFamily,
    TextToTextFamily,
)
from bascule.models.table import family_of_config
from bascule.program.program import Program
from bascule.recipes.encoder import read_encoder
from bascule.recipes.filling import WeightFiller
from bascule.recipes.folder import Folder, ModelOptions
from bascule.recipes.image_text import read_image_text
from bascule.recipes.images import read_image_model
from bascule.recipes.language import read_gguf_model, read_language_folder
from bascule.recipes.missing import explain_missing
from bascule.recipes.speech import read_speech
from bascule.recipes.text_to_text import read_text_to_text
from bascule.recipes.voice import read_voice
from bascule.tasks.loaded import Placement
from bascule.tasks.models import AnyModel
from bascule.weights.early_read import EarlyRead
from bascule.weights.gguf_stream import find_gguf
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source
from bascule.weights.stream import WHOLE


class Recipe(Protocol):
    """What is known of a model before its weights are loaded."""

    def programs(self) -> list[Program]:
        """Return the passes that it will most likely run; together they have every parameter."""
        ...

    def make(self, placement: Placement) -> AnyModel:
        """Make the model there, without its weights."""
        ...

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        """Stream the weights into the store; return the report of quantizing, if any."""
        ...


# Readers of a folder, by the class of its family.
_READERS: Mapping[type[Family], Callable[[Folder, Any], Awaitable[Recipe]]] = {
    EncoderFamily: read_encoder,
    DecoderFamily: read_language_folder,
    SpeechFamily: read_speech,
    TextToTextFamily: read_text_to_text,
    ImageFamily: read_image_model,
    ImageTextFamily: read_image_text,
}


async def read_recipe(
    source: Source,
    file: str | None,
    notify: ProgressCallback,
    *,
    max_length: int | None = None,
    cache_dtype: CacheDType | None = None,
    weights: DType | None = None,
    known_files: Collection[str] = (),
) -> Recipe:
    """Read a model's small files: those of a GGUF `file`, or of any folder.

    `known_files` are all files of the folder, if known: no other is requested. `weights` is the
    block format of float weights. InputError if a file's weights are already in blocks;
    ModelFileError, UnsupportedModelError or SourceError if the model cannot run.
    """
    if cache_dtype is not None:
        one_of("cache_dtype", cache_dtype, ("f16", "f32"))
    options = ModelOptions(max_length, cache_dtype, weights)
    if file is None:
        try:
            return await _read_folder(source, notify, options, known_files)
        except FileMissingError as missing:
            # A folder of a GGUF file may contain the config.json of the model it was made from.
            if missing.location == f"{source.location}/config.json":
                recipe = await read_voice(source, notify, options)
                if recipe is not None:
                    return recipe
            if missing.location in (f"{source.location}/{f}" for f in ("config.json", WHOLE)):
                file = await find_gguf(source)
            if file is None:
                raise await explain_missing(source, missing) from None
    if weights is not None:
        result = f"{file}, whose weights are loaded in the blocks that it has"
        hint = "Load it as it is, or the same model in safetensors with quantize."
        raise InputError("quantize", "a model in safetensors", result, hint=hint)
    return await read_gguf_model(source, file, notify, options)


async def _read_folder(
    source: Source, notify: ProgressCallback, options: ModelOptions, known_files: Collection[str]
) -> Recipe:
    """Read a folder by its config.json."""
    notify(Progress("config", 0, 1, "files"))
    # Requested now, needed after the others: saves a round trip.
    tokenizing = EarlyRead(source, "tokenizer.json")
    try:
        place = f"{source.location}/config.json"
        config = json_object(await source.read("config.json"), place)
        family = family_of_config(config, place)
        folder = Folder(source, config, tokenizing, notify, options, known_files)
        return await _READERS[type(family)](folder, family)
    finally:
        await tokenizing.stop()
