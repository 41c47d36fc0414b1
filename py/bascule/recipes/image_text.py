"""The recipe of models of images and texts: a Hugging Face folder in safetensors."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from math import exp, isfinite

from bascule.base.json_object import TOKENIZER, json_object
from bascule.errors import FileMissingError, ModelFileError, UnsupportedModelError
from bascule.models.family import ImageTextFamily
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Tables, WeightFiller
from bascule.recipes.folder import Folder
from bascule.recipes.tables import all_tensors, read_tables
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.image_text_programs import ImageTextSettings
from bascule.tasks.loaded import Placement
from bascule.text import Tokenizer, open_tokenizer
from bascule.vision.processing import ImageProcessing, read_processing
from bascule.weights.names import MERGES, PIECES, VOCABULARY
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source

_PROCESSING = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"  # where newer folders have the same settings, in one object
_FORMATS = {"F32": "<f", "F16": "<e"}
_LARGEST_SCALE = 20.0  # a logarithm: cosines times 5e8
_LARGEST_BIAS = 1e4


@dataclass(frozen=True, slots=True)
class ImageTextRecipe:
    """A model of images and texts in safetensors; see `recipes.Recipe`."""

    settings: ImageTextSettings
    tokenizer: Tokenizer

    def programs(self) -> list[Program]:
        return self.settings.programs()

    def make(self, placement: Placement) -> ImageTextModel:
        return ImageTextModel(placement, self.settings, self.tokenizer)

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        tables = partial(_matrices, filling.source, self.settings.family)
        return await filling.from_folder(filling.stored(), tables, self.settings.weights)


async def read_image_text(folder: Folder, family: ImageTextFamily) -> ImageTextRecipe:
    """Read the folder of a model of images and texts; errors as `recipes.read_recipe`."""
    config = family.config(folder.config, folder.config_place)

    numbers = [name for name in (family.logit_scale, family.logit_bias) if name]

    async def attempt() -> list[float]:
        tables = await _matrices(folder.source, family)
        expected = (*family.tensors(config), *((name, ()) for name in numbers))
        compare_tensors(expected, all_tensors(tables), family.ignored, folder.place)
        largest = (_LARGEST_SCALE, _LARGEST_BIAS)
        named = zip(numbers, largest, strict=False)
        return [await _number(folder.source, name, tables, maximum) for name, maximum in named]

    scale, *bias = await folder.restarted(attempt)
    processing = await _processing(folder, family, config.image.cut.image)
    try:
        data = await folder.tokenizer_json()
    except FileMissingError:
        data = await _tokenizer_json(folder, family)
        if data is None:
            await _explain_tokenizer(folder.source, family)
            raise
    if family.adapt_tokenizer is not None:
        data = family.adapt_tokenizer(data, f"{folder.place}/tokenizer.json")
    text = config.text
    tokenizer = await open_tokenizer(
        data, text.positions, n_embeddings=text.vocabulary, folder=folder.place
    )
    folder.notify_tokenizer()
    weights = folder.options.weights or "f32"
    settings = ImageTextSettings(family, config, processing, exp(scale), *bias, weights=weights)
    return ImageTextRecipe(settings, tokenizer)


async def _processing(folder: Folder, family: ImageTextFamily, image: int) -> ImageProcessing:
    own = await folder.read_json(_PROCESSING)
    if own is not None:
        return read_processing(own, image, f"{folder.place}/{_PROCESSING}")
    where = f"{folder.place}/{_PROCESSOR}"
    nested = (await folder.read_json(_PROCESSOR) or {}).get("image_processor")
    if nested is None:
        cropped = {"size": {"shortest_edge": image}, "crop_size": image}
        sizes = cropped if family.processing["do_center_crop"] else {"size": image}
        nested = {**sizes, **family.processing}
    if not isinstance(nested, dict):
        raise ModelFileError(where, "its image_processor is not an object")
    return read_processing(nested, image, where)


async def _tokenizer_json(folder: Folder, family: ImageTextFamily) -> bytes | None:
    """Make it from the vocabulary and the merges; None if one of them is missing."""
    if family.tokenizer_json is None:
        return None
    vocabulary, merges = await folder.read(VOCABULARY), await folder.read(MERGES)
    if vocabulary is None or merges is None:
        return None
    where = f"{folder.place}/{VOCABULARY}"
    return family.tokenizer_json(json_object(vocabulary, where, TOKENIZER), merges, folder.place)


async def _explain_tokenizer(source: Source, family: ImageTextFamily) -> None:
    """UnsupportedModelError for a folder whose tokenizer is only a SentencePiece model."""
    try:
        await source.size(PIECES)
    except FileMissingError:
        return
    problem = f"its tokenizer is in {PIECES} alone, and this version reads tokenizer.json"
    raise UnsupportedModelError(source.location, problem, hint=family.tokenizer_hint)


async def _number(source: Source, name: str, tables: Tables, largest: float) -> float:
    """Return a tensor's one number; ModelFileError if it exceeds `largest` or is missing."""
    file, tensor = next((f, table[name]) for f, table in tables.items() if name in table)
    data = await source.read(file, tensor.start, tensor.nbytes)
    if tensor.dtype == "BF16":
        data = bytes(2) + data
    layout = _FORMATS.get(tensor.dtype, "<f" if tensor.dtype == "BF16" else "")
    result = struct.unpack(layout, data)[0] if layout else None
    if result is None or not isfinite(result) or abs(result) > largest:
        problem = f"{name} is {result if layout else tensor.dtype}"
        expected = f"expected a float of at most {largest:g}"
        raise ModelFileError(f"{source.location}/{file}", f"{problem}, {expected}")
    return result


async def _matrices(source: Source, family: ImageTextFamily) -> Tables:
    """Return a folder's tensors, with at most two axes."""
    tables = await read_tables(source, family)
    return {file: family.as_matrices(table) for file, table in tables.items()}
