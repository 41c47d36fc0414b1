"""The recipe of text-to-text models: a Hugging Face folder in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.errors import InputError, ModelFileError
from bascule.models.encoder.files import family_names
from bascule.models.family import TextToTextFamily
from bascule.models.tensors import compare_tensors
from bascule.models.text_to_text.config import MAX_TOKENS
from bascule.program.program import Program
from bascule.recipes.filling import WeightFiller
from bascule.recipes.folder import Folder
from bascule.recipes.tables import all_tensors, read_tables
from bascule.tasks.loaded import Placement
from bascule.tasks.text_to_text import TextToTextModel, TextToTextSettings
from bascule.tasks.text_to_text_programs import Transformer
from bascule.text.sentence_pieces import open_piece_tokenizer
from bascule.weights.quantized import QuantizationReport


@dataclass(frozen=True, slots=True)
class TextToTextRecipe:
    """A text-to-text model's recipe; see `recipes.Recipe`."""

    settings: TextToTextSettings
    weights: DType | None

    def programs(self) -> list[Program]:
        return self.settings.transformer.programs()

    def make(self, placement: Placement) -> TextToTextModel:
        return TextToTextModel(placement, self.settings)

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        tables = partial(read_tables, filling.source, self.settings.transformer.family)
        return await filling.from_folder(filling.parameters, tables, self.weights)


async def read_text_to_text(folder: Folder, family: TextToTextFamily) -> TextToTextRecipe:
    """Read the folder of a text-to-text model.

    InputError for a `max_length` that is too large and for float16 caches; other errors as
    `recipes.read_recipe`.
    """
    options, place = folder.options, folder.config_place
    config = family.config(folder.config, place)
    if options.cache_dtype == "f16":
        result = "'f16', and the caches of text-to-text models hold floats"
        raise InputError("cache_dtype", "'f32', or none", result, hint="Leave cache_dtype out.")
    max_length = options.max_length
    if max_length is not None and not 2 <= max_length <= MAX_TOKENS:
        raise InputError("max_length", f"2 to {MAX_TOKENS:,} tokens", f"{max_length}")
    tensors = all_tensors(await folder.tables(family))
    untied = "lm_head.weight" in tensors
    config = replace(config, untied=untied, weights=options.weights or "f32")
    hint = "Use a model for generation without it."
    expected = family_names(family, family.tensors(config))
    compare_tensors(expected, tensors, family.ignored, folder.place, hint=hint)
    ends = _ends(folder.config, config.vocabulary, place)
    data = await folder.tokenizer_json()
    where = f"{folder.place}/tokenizer.json"
    tokenizer = await open_piece_tokenizer(
        data, n_embeddings=config.vocabulary, ends=ends, place=where
    )
    folder.notify_tokenizer()
    transformer = Transformer(family, config, max_length or config.positions)
    return TextToTextRecipe(TextToTextSettings(transformer, tokenizer), options.weights)


def _ends(config: Mapping[str, Any], vocabulary: int, place: str) -> frozenset[int]:
    """Return the ids, one or a list, that end a text."""
    result = config.get("eos_token_id", 1)
    listed: list[Any] = result if isinstance(result, list) else [result]
    if not all(type(token) is int and 0 <= token < vocabulary for token in listed):
        raise ModelFileError(place, f"eos_token_id is {str(result)[:40]}, expected token ids")
    return frozenset(listed)
