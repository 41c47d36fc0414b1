"""The recipe of models of images: a Hugging Face folder in safetensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bascule.backend.base import Backend, WeightStore
from bascule.base.dtypes import DType
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.models.encoder.classes import read_classes
from bascule.models.family import Family, ImageFamily
from bascule.models.image.files import Sizes, as_matrices, check_tensors, linear_tensors
from bascule.program.program import Parameter, Program
from bascule.recipes.tables import Tables, all_tensors, fill_from_folder, read_known, read_tables
from bascule.tasks.images import ImageModel, ImageModelSettings
from bascule.tasks.loaded import Placement
from bascule.vision.processing import ImageProcessing, read_processing
from bascule.weights.computed import write_computed
from bascule.weights.quantized import QuantizationReport
from bascule.weights.source import Source
from bascule.weights.stream import with_restarts

_PROCESSING = "preprocessor_config.json"


async def read_image_tables(source: Source, family: Family, rows: frozenset[str]) -> Tables:
    """Return a folder's tensors, by the family's names and with at most two axes."""
    tables = await read_tables(source, family)
    return {file: as_matrices(table, rows) for file, table in tables.items()}


async def read_image_processing(
    source: Source, known_files: Collection[str], image: int
) -> ImageProcessing:
    """Read a folder's preprocessor_config.json, if it has one; errors as `read_processing`."""
    place = f"{source.location}/{_PROCESSING}"
    data = await read_known(source, known_files, _PROCESSING)
    return read_processing(json_object(data, place) if data else {}, image, place)


async def fill_images(
    source: Source,
    parameters: Sequence[Parameter],
    store: WeightStore,
    progress: ProgressCallback,
    tables: Callable[[], Any],
    *,
    backend: Backend,
    weights: DType,
    parallel: bool,
) -> QuantizationReport | None:
    """See `Recipe.fill`."""
    return await fill_from_folder(
        source,
        write_computed(parameters, store),
        store,
        progress,
        tables=tables,
        backend=backend,
        weights=None if weights == "f32" else weights,
        parallel=parallel,
    )


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """A model of images in safetensors; see `recipes.Recipe`."""

    settings: ImageModelSettings

    def programs(self) -> list[Program]:
        """See `Recipe`."""
        return self.settings.programs()

    def make(self, placement: Placement) -> ImageModel:
        """See `Recipe`."""
        return ImageModel(placement, self.settings)

    async def fill(
        self,
        source: Source,
        parameters: Sequence[Parameter],
        store: WeightStore,
        progress: ProgressCallback,
        *,
        backend: Backend,
        parallel: bool,
    ) -> QuantizationReport | None:
        """See `Recipe`."""
        tables = partial(read_image_tables, source, self.settings.family, frozenset[str]())
        fill = partial(fill_images, source, parameters, store, progress, tables)
        return await fill(backend=backend, weights=self.settings.weights, parallel=parallel)


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
    attempt = partial(read_image_tables, source, family, frozenset[str]())
    found = all_tensors(await with_restarts(source, attempt, source.forget))
    listed = config_json.get("architectures") or ()
    labels = f"{family.labels}.weight" in found if not listed else listed[0] in family.classifiers
    classes = read_classes(config_json, {}, file) if labels else None
    expected: list[Sizes] = [*family.tensors(config)]
    if classes is not None:
        n, c = len(classes.labels), config.layers.hidden
        expected += linear_tensors(family.labels, n, c)
    check_tensors(expected, found, family.ignored, place)
    processing = await read_image_processing(source, known_files, config.cut.image)
    tell(Progress("config", 1, 1, "files"))
    return ImageRecipe(ImageModelSettings(family, config, processing, classes, weights))
