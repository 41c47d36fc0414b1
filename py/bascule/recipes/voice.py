"""The recipe of voice activity models: one safetensors file of fixed sizes, no config.json."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import FileMissingError
from bascule.models.family import VoiceFamily
from bascule.models.table import VOICE_FAMILIES
from bascule.models.tensors import compare_tensors
from bascule.program.program import Program
from bascule.recipes.filling import Tables, WeightFiller
from bascule.recipes.folder import ModelOptions
from bascule.tasks.loaded import Placement
from bascule.tasks.voice import VoiceActivityModel, voice_programs
from bascule.weights.source import Source
from bascule.weights.stream import read_header, with_restarts


@dataclass(frozen=True, slots=True)
class VoiceRecipe:
    """A voice activity model's file; see `recipes.Recipe`."""

    family: VoiceFamily

    def programs(self) -> list[Program]:
        return voice_programs(self.family)

    def make(self, placement: Placement) -> VoiceActivityModel:
        return VoiceActivityModel(placement, self.family)

    async def fill(self, filling: WeightFiller) -> None:
        """See `Recipe`. Weights are never quantized."""
        tables = partial(_matrices, filling.source, self.family)
        await filling.from_folder(filling.stored(), tables)


async def read_voice(
    source: Source, notify: ProgressCallback, options: ModelOptions
) -> VoiceRecipe | None:
    """Read a folder without a config.json; None unless it has the file of such a model.

    InputError for weights to quantize; other errors as `recipes.read_recipe`.
    """
    for family in VOICE_FAMILIES:
        read = partial(read_header, source, family.file)
        try:
            tensors = await with_restarts(source, read, source.forget)
        except FileMissingError:
            continue
        place = f"{source.location}/{family.file}"
        options.check_unquantized("voice activity model", place)
        compare_tensors(family.tensors, tensors, family.ignored, place, settings="layout")
        notify(Progress("config", 1, 1, "files"))
        return VoiceRecipe(family)
    return None


async def _matrices(source: Source, family: VoiceFamily) -> Tables:
    table = await read_header(source, family.file)
    return {family.file: {name: family.as_matrix(tensor) for name, tensor in table.items()}}
