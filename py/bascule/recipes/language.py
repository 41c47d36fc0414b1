"""The recipes of language models: one GGUF file, or a Hugging Face folder in safetensors."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

from bascule.base.dtypes import DType, dtype_of
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import ModelFileError
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.files import (
    ROPE_FACTORS,
    TABLE,
    check_metadata_tensors,
    with_types,
)
from bascule.models.family import DecoderFamily
from bascule.models.table import family_of_metadata
from bascule.program.program import Program
from bascule.recipes.filling import WeightFiller
from bascule.recipes.folder import Folder, ModelOptions
from bascule.recipes.tables import all_tensors, named_in_folder, read_tables
from bascule.tasks.language import LanguageModel, LanguageSettings
from bascule.tasks.language_graph import Decoder
from bascule.tasks.language_programs import essential_programs
from bascule.tasks.loaded import Placement
from bascule.text.chat import open_chat_template
from bascule.text.folder_vocabulary import (
    CHAT_TEMPLATE,
    TOKENIZER_CONFIG,
    TokenizerFiles,
    read_folder_vocabulary,
)
from bascule.text.language import open_text_tokenizer
from bascule.text.vocabulary import Vocabulary, read_vocabulary
from bascule.weights.gguf import GgufHeader
from bascule.weights.gguf_stream import load_gguf_weights, read_gguf
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source, read_optional

# Optional files beside config.json and tokenizer.json.
_BESIDE = (TOKENIZER_CONFIG, CHAT_TEMPLATE, "generation_config.json")


@dataclass(frozen=True, slots=True)
class LanguageRecipe:
    """A language model's recipe, for any files; see `Recipe`."""

    settings: LanguageSettings
    options: ModelOptions

    def programs(self) -> list[Program]:
        decoder, options = self.settings.decoder, self.options
        length = options.max_length or decoder.config.context
        return essential_programs(decoder, length, options.cache)

    def make(self, placement: Placement) -> LanguageModel:
        return LanguageModel(
            placement,
            self.settings,
            max_length=self.options.max_length,
            cache_dtype=self.options.cache,
        )


@dataclass(frozen=True, slots=True)
class GgufRecipe(LanguageRecipe):
    """A language model in one GGUF file."""

    file: str
    header: GgufHeader

    async def fill(self, filling: WeightFiller) -> None:
        """See `Recipe`. A single file has nothing to fetch in parallel."""
        await load_gguf_weights(
            filling.source,
            self.file,
            self.header,
            filling.parameters,
            filling.store,
            progress=filling.progress,
        )


@dataclass(frozen=True, slots=True)
class FolderRecipe(LanguageRecipe):
    """A decoder in safetensors."""

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        family = self.settings.decoder.family
        named = [named_in_folder(parameter, family) for parameter in filling.parameters]
        tables = partial(read_tables, filling.source, family)
        return await filling.from_folder(named, tables, self.options.weights)


async def read_gguf_model(
    source: Source, file: str, notify: ProgressCallback, options: ModelOptions
) -> GgufRecipe:
    """Read a GGUF file's metadata; errors as `recipes.read_recipe`."""
    place = f"{source.location}/{file}"
    notify(Progress("config", 0, 1, "files"))
    header = await read_gguf(source, file)
    types: dict[str, DType] = {t.name: dtype_of(t.type) for t in header.tensors.values()}
    table = header.tensors.get(TABLE)
    if table is None or len(table.shape) != 2:
        raise ModelFileError(place, f"it lacks the matrix {TABLE!r}")
    architecture, family = family_of_metadata(header.metadata, place)
    read = family.architectures[architecture]
    config = read(header.metadata, types, table.shape[0], place)
    check_metadata_tensors(family, config, place)
    notify(Progress("config", 1, 1, "files"))
    notify(Progress("tokenizer", 0, 1, "files"))
    vocabulary = read_vocabulary(header.metadata, place)
    config = replace(config, factors=await _gguf_factors(source, file, header, config))
    settings = await _settings(Decoder(family, config), vocabulary, place, source.location)
    notify(Progress("tokenizer", 1, 1, "files"))
    return GgufRecipe(settings, options, file, header)


async def read_language_folder(folder: Folder, family: DecoderFamily) -> FolderRecipe:
    """Read the folder of a decoder; errors as `recipes.read_recipe`."""
    place, weights = folder.config_place, folder.options.weights
    tensors = all_tensors(await folder.tables(family))
    config = family.config(folder.config, place)
    config = with_types(family, config, folder.config, tensors, weights, place)
    vocabulary = read_folder_vocabulary(await _tokenizer_files(folder))
    settings = await _settings(Decoder(family, config), vocabulary, folder.place, folder.place)
    folder.notify_tokenizer()
    return FolderRecipe(settings, folder.options)


async def _tokenizer_files(folder: Folder) -> TokenizerFiles:
    config, template, generation = await asyncio.gather(
        *(read_optional(folder.source, file) for file in _BESIDE)
    )
    place = f"{folder.place}/{_BESIDE[2]}"
    more = {} if generation is None else json_object(generation, place)
    ends = _ends(folder.config, folder.config_place) | _ends(more, place)
    return TokenizerFiles(folder.place, await folder.tokenizer_json(), config, template, ends)


def _ends(fields: Mapping[str, Any], place: str) -> frozenset[int]:
    """Return the ids, one or a list, that end a text."""
    result = fields.get("eos_token_id")
    listed: list[Any] = result if isinstance(result, list) else [] if result is None else [result]
    if not all(type(token) is int for token in listed):
        raise ModelFileError(place, f"eos_token_id is {str(result)[:40]}, expected token ids")
    return frozenset(listed)


async def _settings(
    decoder: Decoder, vocabulary: Vocabulary, place: str, folder: str
) -> LanguageSettings:
    rows = decoder.config.vocabulary
    if len(vocabulary.tokens) > rows:
        problem = f"it has {len(vocabulary.tokens):,} tokens and {rows:,} embeddings"
        raise ModelFileError(place, problem)
    tokenizer = await open_text_tokenizer(vocabulary, folder)
    template = await open_chat_template(tokenizer, place) if vocabulary.chat_template else None
    return LanguageSettings(decoder, tokenizer, template)


async def _gguf_factors(
    source: Source, file: str, header: GgufHeader, config: DecoderConfig
) -> tuple[float, ...] | None:
    tensor = header.tensors.get(ROPE_FACTORS)
    if tensor is None:
        return None
    if tensor.type.name != "F32" or tensor.shape != (config.size // 2,):
        raise ModelFileError(f"{source.location}/{file}", f"{ROPE_FACTORS} is not as it should be")
    factors = array("f", await source.read(file, tensor.start, tensor.nbytes))
    if not all(0 < factor < inf for factor in factors):
        raise ModelFileError(f"{source.location}/{file}", f"{ROPE_FACTORS} holds no factors")
    return tuple(factors)
