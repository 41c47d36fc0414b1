"""What the recipes of encoders share: the tensors of a folder and of its modules, and the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bascule.base.dtypes import DType
from bascule.errors import FileMissingError
from bascule.models.encoder.files import plain_names
from bascule.models.family import Family
from bascule.program.program import Parameter, Program
from bascule.recipes.filling import Tables, WeightFiller
from bascule.tasks.batched import BatchSettings
from bascule.tasks.sentence_graph import Encoder
from bascule.weights.quantized import QuantizationReport
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import WHOLE, read_header, read_headers


class EncoderSettings(BatchSettings, Protocol):
    """What loading an encoder, and what follows it, needs of its settings."""

    @property
    def encoder(self) -> Encoder:
        """The encoder itself."""
        ...

    @property
    def weights(self) -> DType:
        """The storage dtype of its floats."""
        ...

    def programs(self) -> list[Program]:
        """The passes of all buckets."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderFolderRecipe:
    """What the recipes of encoders in safetensors share; see `recipes.Recipe`."""

    settings: EncoderSettings

    @property
    def module_folders(self) -> Sequence[str]:
        """The folders of modules that have weights."""
        return ()

    def programs(self) -> list[Program]:
        return self.settings.programs()

    async def fill(self, filling: WeightFiller) -> QuantizationReport | None:
        family = self.settings.encoder.family
        named = [named_in_folder(parameter, family) for parameter in filling.stored()]
        tables = partial(read_tables, filling.source, family, self.module_folders)
        return await filling.from_folder(named, tables, self.settings.weights)


async def read_tables(source: Source, family: Family, folders: Sequence[str] = ()) -> Tables:
    """Return the tensors of the model, by the family's names, and of its modules."""
    files = await read_headers(source)
    place = source.location
    named = {f: plain_names(family, table, f"{place}/{f}") for f, table in files.items()}
    return named | await read_module_tables(source, folders)


def all_tensors(tables: Tables) -> Mapping[str, TensorInfo]:
    """Return the tensors of all files by their names."""
    return {name: tensor for table in tables.values() for name, tensor in table.items()}


def named_in_folder(parameter: Parameter, family: Family) -> Parameter:
    """Name a parameter's tensors as the folder does; those of modules have a folder's name."""
    names = (name if "/" in name else family.tensor_name(name) for name in parameter.tensors)
    return replace(parameter, tensors=tuple(names))


async def read_module_tables(source: Source, folders: Sequence[str]) -> Tables:
    """Return each module's tensors, with its folder before their own names."""
    results: Tables = {}
    for folder in folders:
        file = f"{folder}/{WHOLE}"
        try:
            table = await read_header(source, file)
        except FileMissingError as missing:
            hint = "Save the model again as safetensors: save_pretrained(FOLDER)."
            raise FileMissingError(missing.location, hint=hint) from None
        results[file] = {f"{folder}/{name}": tensor for name, tensor in table.items()}
    return results
