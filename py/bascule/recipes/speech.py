"""The recipe of speech models: a Hugging Face folder in safetensors, or CTranslate2's model.bin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import InputError
from bascule.models.decoder.graph import CacheDType
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import SpeechConfig
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Filling, Tables
from bascule.recipes.tables import all_tensors, read_known
from bascule.tasks.loaded import Placement
from bascule.tasks.speech import SpeechModel, SpeechSettings
from bascule.tasks.speech_aligner import read_heads
from bascule.tasks.speech_graph import Speech, speech_programs
from bascule.tasks.speech_tokens import read_speech_tokens
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from bascule.text.language import open_text_tokenizer
from bascule.weights.names import MODEL_BIN
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import read_headers, with_restarts

GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class SpeechRecipe:
    """What is known of a speech model, whatever its files; see `Recipe`."""

    settings: SpeechSettings
    cache: CacheDType
    tables: Callable[[Source], Awaitable[Tables]]

    def programs(self) -> list[Program]:
        return speech_programs(self.settings.speech, self.cache, self.settings.tokens.timestamps)

    def make(self, placement: Placement) -> SpeechModel:
        return SpeechModel(placement, self.settings, cache_dtype=self.cache)

    async def fill(self, filling: Filling) -> None:
        """See `Recipe`. Weights are never quantized."""
        await filling.from_folder(filling.stored(), partial(self.tables, filling.source))


async def read_speech(
    source: Source,
    family: SpeechFamily,
    config_json: Mapping[str, Any],
    tokenizing: Awaitable[bytes],
    tell: ProgressCallback,
    weights: DType | None,
    cache: CacheDType,
    known_files: Collection[str] = (),
) -> SpeechRecipe:
    """Read what a folder says of a speech model; `tokenizing` reads its tokenizer.json.

    InputError for `weights` to quantize to; other errors as `recipes.read_recipe`.
    """
    place = source.location
    if weights is not None:
        hint = "Load it without quantize."
        raise InputError("quantize", "no speech model", place, hint=hint)
    converted = "model_type" not in config_json
    tables = partial(_converted_tables if converted else _folder_tables, family)
    if converted:
        read = partial(read_converted, source, family)
        config, tensors = await with_restarts(source, read, source.forget)
        settings = dict(config_json)
    else:
        config = family.config(config_json, f"{place}/config.json")
        headers = await with_restarts(source, partial(read_headers, source), source.forget)
        tensors = all_tensors(headers)
        generation = await read_known(source, known_files, GENERATION)
        more = {} if generation is None else json_object(generation, f"{place}/{GENERATION}")
        settings = {**config_json, **more}
    compare_tensors(family.tensors(config), tensors, family.ignored, place)
    tell(Progress("config", 1, 1, "files"))
    tell(Progress("tokenizer", 0, 1, "files"))
    vocabulary = read_folder_vocabulary(TokenizerFiles(place, await tokenizing, bare=True))
    tokens = read_speech_tokens(vocabulary, config.vocabulary, settings, place)
    tokenizer = await open_text_tokenizer(vocabulary, place)
    tell(Progress("tokenizer", 1, 1, "files"))
    made = SpeechSettings(
        Speech(family, config), tokenizer, tokens, read_heads(settings, config, place)
    )
    return SpeechRecipe(made, cache, tables)


async def read_converted(
    source: Source, family: SpeechFamily
) -> tuple[SpeechConfig, dict[str, TensorInfo]]:
    """Return the sizes and the tensors of a CTranslate2 folder; errors as the family's reader."""

    async def read(offset: int, count: int) -> bytes:
        return await source.read(MODEL_BIN, offset, count)

    nbytes = await source.size(MODEL_BIN)
    return await family.read_converted(read, nbytes, f"{source.location}/{MODEL_BIN}")


async def _converted_tables(family: SpeechFamily, source: Source) -> Tables:
    return family.as_matrices({MODEL_BIN: (await read_converted(source, family))[1]})


async def _folder_tables(family: SpeechFamily, source: Source) -> Tables:
    return family.as_matrices(await read_headers(source))
