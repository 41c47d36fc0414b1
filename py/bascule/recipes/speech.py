"""The recipe of speech models: a Hugging Face folder in safetensors, or CTranslate2's model.bin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from bascule.models.decoder.graph import CacheDType
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import SpeechConfig
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Tables, WeightFiller
from bascule.recipes.folder import Folder
from bascule.recipes.tables import all_tensors
from bascule.tasks.loaded import Placement
from bascule.tasks.speech import SpeechModel, SpeechSettings
from bascule.tasks.speech_aligner import read_heads
from bascule.tasks.speech_graph import SpeechSpec, speech_programs
from bascule.tasks.speech_tokens import read_speech_tokens
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from bascule.text.language import open_text_tokenizer
from bascule.weights.names import MODEL_BIN
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import read_headers

GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class SpeechRecipe:
    """A speech model's recipe, for any files; see `Recipe`."""

    settings: SpeechSettings
    cache: CacheDType
    tables: Callable[[Source], Awaitable[Tables]]

    def programs(self) -> list[Program]:
        return speech_programs(self.settings.speech, self.cache, self.settings.tokens.timestamps)

    def make(self, placement: Placement) -> SpeechModel:
        return SpeechModel(placement, self.settings, cache_dtype=self.cache)

    async def fill(self, filling: WeightFiller) -> None:
        """See `Recipe`. Weights are never quantized."""
        await filling.from_folder(filling.stored(), partial(self.tables, filling.source))


async def read_speech(folder: Folder, family: SpeechFamily) -> SpeechRecipe:
    """Read the folder of a speech model.

    InputError for weights to quantize; other errors as `recipes.read_recipe`.
    """
    place = folder.place
    folder.options.check_unquantized("speech model", place)
    converted = "model_type" not in folder.config
    tables = partial(_converted_tables if converted else _folder_tables, family)
    settings = dict(folder.config)
    if converted:
        config, tensors = await folder.restarted(partial(read_converted, folder.source, family))
    else:
        config = family.config(settings, folder.config_place)
        tensors = all_tensors(await folder.restarted(partial(read_headers, folder.source)))
        settings |= await folder.read_json(GENERATION) or {}
    compare_tensors(family.tensors(config), tensors, family.ignored, place)
    data = await folder.tokenizer_json()
    vocabulary = read_folder_vocabulary(TokenizerFiles(place, data, bare=True))
    tokens = read_speech_tokens(vocabulary, config.vocabulary, settings, place)
    tokenizer = await open_text_tokenizer(vocabulary, place)
    folder.notify_tokenizer()
    read = SpeechSettings(
        SpeechSpec(family, config), tokenizer, tokens, read_heads(settings, config, place)
    )
    return SpeechRecipe(read, folder.options.cache, tables)


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
