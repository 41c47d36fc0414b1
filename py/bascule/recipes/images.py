"""The recipe of models of images: a Hugging Face folder in safetensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.models.encoder.classes import read_classes
from bascule.models.family import ImageFamily
from bascule.models.image.files import Sizes, as_matrices, linear_tensors
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Filling, Tables
from bascule.recipes.tables import all_tensors, read_known, read_tables
from bascule.tasks.images import ImageModel, ImageModelSettings
from bascule.tasks.loaded import Placement
from bascule.vision.processing import read_processing
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source
from bascule.weights.stream import with_restarts

_PROCESSING = "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """A model of images in safetensors; see `recipes.Recipe`."""

    settings: ImageModelSettings

    def programs(self) -> list[Program]:
        return self.settings.programs()

    def make(self, placement: Placement) -> ImageModel:
        return ImageModel(placement, self.settings)

    async def fill(self, filling: Filling) -> QuantizationReport | None:
        tables = partial(_matrices, filling.source, self.settings.family)
        return await filling.from_folder(filling.stored(), tables, self.settings.weights)


async def read_image_model(
    source: Source,
    family: ImageFamily,
    config_json: Mapping[str, Any],
    tell: ProgressCallback,
    weights: DType,
    known_files: Collection[str] = (),
) -> ImageRecipe:
    """Read what a folder says of a model of images; errors as `recipes.read_recipe`."""
    place = source.location
    file = f"{place}/config.json"
    config = family.config(config_json, file)
    data = await read_known(source, known_files, _PROCESSING)
    where = f"{place}/{_PROCESSING}"
    processing_json = json_object(data, where) if data else {}
    processing = read_processing(processing_json, config.cut.image, where, any_size=family.any_size)
    if family.any_size:
        config = replace(config, cut=config.cut.seeing(processing.side(where), where))
    attempt = partial(_matrices, source, family)
    result = all_tensors(await with_restarts(source, attempt, source.forget))
    listed = config_json.get("architectures") or ()
    labels = f"{family.labels}.weight" in result if not listed else listed[0] in family.classifiers
    classes = read_classes(config_json, {}, file) if labels else None
    settings = ImageModelSettings(family, config, processing, classes, weights)
    expected: list[Sizes] = [*family.tensors(config)]
    if classes is not None:
        expected += linear_tensors(family.labels, len(classes.labels), settings.label_features)
    compare_tensors(expected, result, family.ignored, place)
    tell(Progress("config", 1, 1, "files"))
    return ImageRecipe(settings)


async def _matrices(source: Source, family: ImageFamily) -> Tables:
    """Return a folder's tensors, by the family's names and with at most two axes."""
    tables = await read_tables(source, family)
    return {file: as_matrices(table) for file, table in tables.items()}
