"""The recipe of models of images: a Hugging Face folder in safetensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from bascule.base.json_object import json_object
from bascule.base.progress import Progress
from bascule.models.encoder.classes import read_classes
from bascule.models.family import ImageFamily
from bascule.models.image.files import Sizes, as_matrices, linear_tensors
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Tables, WeightFiller
from bascule.recipes.folder import Folder
from bascule.recipes.tables import all_tensors, read_tables
from bascule.tasks.images import ImageModel, ImageModelSettings
from bascule.tasks.loaded import Placement
from bascule.vision.processing import read_processing
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source

_PROCESSING = "preprocessor_config.json"


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """A model of images in safetensors; see `recipes.Recipe`."""

    settings: ImageModelSettings

    def programs(self) -> list[Program]:
        return self.settings.programs()

    def make(self, placement: Placement) -> ImageModel:
        return ImageModel(placement, self.settings)

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        tables = partial(_matrices, filling.source, self.settings.family)
        return await filling.from_folder(filling.stored(), tables, self.settings.weights)


async def read_image_model(folder: Folder, family: ImageFamily) -> ImageRecipe:
    """Read the folder of an image model; errors as `recipes.read_recipe`."""
    config = family.config(folder.config, folder.config_place)
    where = f"{folder.place}/{_PROCESSING}"
    data = await folder.read(_PROCESSING)
    processing_json = json_object(data, where) if data else {}
    processing = read_processing(processing_json, config.cut.image, where, any_size=family.any_size)
    if family.any_size:
        config = replace(config, cut=config.cut.seeing(processing.side(where), where))
    tables = await folder.restarted(partial(_matrices, folder.source, family))
    result = all_tensors(tables)
    listed = folder.config.get("architectures") or ()
    labels = f"{family.labels}.weight" in result if not listed else listed[0] in family.classifiers
    classes = read_classes(folder.config, {}, folder.config_place) if labels else None
    weights = folder.options.weights or "f32"
    settings = ImageModelSettings(family, config, processing, classes, weights)
    expected: list[Sizes] = [*family.tensors(config)]
    if classes is not None:
        expected += linear_tensors(family.labels, len(classes.labels), settings.label_features)
    compare_tensors(expected, result, family.ignored, folder.place)
    folder.notify(Progress("config", 1, 1, "files"))
    return ImageRecipe(settings)


async def _matrices(source: Source, family: ImageFamily) -> Tables:
    """Return a folder's tensors, by the family's names and with at most two axes."""
    tables = await read_tables(source, family)
    return {file: as_matrices(table) for file, table in tables.items()}
