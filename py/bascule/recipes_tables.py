"""What the recipes of encoders share: the tensors of a folder and of its modules, and the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from bascule.backend.base import Backend, WeightStore
from bascule.dtypes import DType
from bascule.errors import FileMissingError
from bascule.models.encoder.files import plain_names
from bascule.models.family import EncoderFamily
from bascule.program.program import Parameter
from bascule.progress import ProgressCallback
from bascule.weights.computed import write_computed
from bascule.weights.quantised import QuantizationReport, load_quantised
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import WHOLE, load_weights, read_header, read_headers

Tables: TypeAlias = dict[str, dict[str, TensorInfo]]


async def fill_from_folder(
    source: Source,
    family: EncoderFamily,
    parameters: Sequence[Parameter],
    store: WeightStore,
    progress: ProgressCallback,
    *,
    weights: DType,
    backend: Backend,
    parallel: bool,
    folders: Sequence[str] = (),
) -> QuantizationReport | None:
    """Stream the weights of a folder, and of the `folders` of its modules, into the store.

    What is quantized to `weights` comes one shard at a time.
    """
    read = write_computed(parameters, store)
    parameters = [_in_folder(parameter, family) for parameter in read]
    named: dict[str, Any] = {
        "progress": progress,
        "headers": partial(read_tables, source, family, folders),
    }
    if weights == "f32":
        await load_weights(source, parameters, store, parallel=parallel, **named)
        return None
    return await load_quantised(source, parameters, store, backend, weights, **named)


async def read_tables(source: Source, family: EncoderFamily, folders: Sequence[str] = ()) -> Tables:
    """Return the tensors of the encoder, by the family's names, and of its modules."""
    files = await read_headers(source)
    place = source.location
    named = {f: plain_names(family, table, f"{place}/{f}") for f, table in files.items()}
    return named | await read_module_tables(source, folders)


def all_tensors(tables: Tables) -> Mapping[str, TensorInfo]:
    """Return the tensors of all files by their names."""
    return {name: tensor for table in tables.values() for name, tensor in table.items()}


def _in_folder(parameter: Parameter, family: EncoderFamily) -> Parameter:
    """Name a parameter's tensors as the folder does; those of modules have a folder's name."""
    names = (name if "/" in name else family.tensor_name(name) for name in parameter.tensors)
    return replace(parameter, tensors=tuple(names))


async def read_module_tables(source: Source, folders: Sequence[str]) -> Tables:
    """Each module's tensors, named with its folder before their own names."""
    found: Tables = {}
    for folder in folders:
        file = f"{folder}/{WHOLE}"
        try:
            table = await read_header(source, file)
        except FileMissingError as missing:
            hint = "Save the model again as safetensors: save_pretrained(FOLDER)."
            raise FileMissingError(missing.location, hint=hint) from None
        found[file] = {f"{folder}/{name}": tensor for name, tensor in table.items()}
    return found
