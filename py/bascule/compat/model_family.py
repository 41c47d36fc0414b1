"""The kind and size of a model, from its files if there are any, else from its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from os import PathLike
from pathlib import PurePosixPath
from typing import Any, Literal

from bascule.base.json_object import json_object
from bascule.base.waiting import start
from bascule.device.loading import open_files
from bascule.errors import (
    FileMissingError,
    InputError,
    ModelNotFoundError,
)
from bascule.models.classes import (
    CLASSES,
    ModelClass,
    class_of_config,
    class_of_metadata,
    class_of_name,
    class_of_shapes,
    first_class,
)
from bascule.weights.gguf_stream import find_gguf, read_gguf
from bascule.weights.source import Source, read_optional
from bascule.weights.stream import read_headers

Size = Literal["small", "medium", "large", "very large"]
# The largest numbers of parameters: 0.8, 8 and 80 GB of float32.
_SIZES: tuple[tuple[float, Size], ...] = ((2e8, "small"), (2e9, "medium"), (2e10, "large"))
_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d{1,4}(?:\.\d{1,3})?)\s?([bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A model's class and size; None is unknown.

    `family` is one of `model_families()`, `model_type` the files' own word. `nbytes` is the size of
    the stored weights. `family_source` and `size_source` are the evidence: "config.json", "GGUF
    metadata", "tensor shapes", or "name", which is a guess; empty without any.
    """

    name: str
    family: ModelClass | None
    family_source: str
    model_type: str | None = None
    size: Size | None = None
    n_parameters: int | None = None
    nbytes: int | None = None
    size_source: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def model_families() -> tuple[str, ...]:
    """Return the classes of models that `classify_model` distinguishes."""
    return CLASSES


def classify_model(model: str | PathLike[str]) -> Any:
    """Determine a model's class and size from its config.json, GGUF header or tensor shapes.

    `model` is what `bascule.load` takes; no weights are read. If there is no such model here, only
    the name is used, and the result says so. Returns a ModelFamily, or an awaitable of one if an
    event loop is running. InputError for an empty name, ModelFileError for damaged files.
    """
    return start(read_family(model))


async def read_family(model: str | PathLike[str]) -> ModelFamily:
    """See `classify_model`."""
    name = str(model)
    if not name.strip():
        raise InputError("classify_model", "a model's name, folder or URL", repr(name))
    try:
        source, file = open_files(model)
    except ModelNotFoundError:
        return _by_name(name)
    try:
        file = file or await _gguf_of(source)
        result = await (_of_gguf(name, source, file) if file else _of_folder(name, source))
    except FileMissingError:
        result = None
    finally:
        await source.settle()
        source.release()
    return result or _by_name(name)


async def _gguf_of(source: Source) -> str | None:
    """Return the folder's GGUF file if it has no config.json."""
    if await read_optional(source, "config.json") is not None:
        return None
    return await find_gguf(source)


async def _of_gguf(name: str, source: Source, file: str) -> ModelFamily:
    header = await read_gguf(source, file)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors.values()}
    kind = header.metadata.get("general.architecture")
    family, shown = first_class(
        (
            ("GGUF metadata", partial(class_of_metadata, header.metadata)),
            ("tensor shapes", partial(class_of_shapes, shapes)),
            ("name", partial(class_of_name, name)),
        )
    )
    nbytes = sum(tensor.nbytes for tensor in header.tensors.values())
    return _measured(name, family, shown, _text(kind), shapes, nbytes)


async def _of_folder(name: str, source: Source) -> ModelFamily:
    data = await read_optional(source, "config.json")
    config = json_object(data, f"{source.location}/config.json") if data is not None else {}
    shapes: dict[str, tuple[int, ...]] = {}
    nbytes = 0
    try:
        for table in (await read_headers(source)).values():
            shapes |= {tensor.name: tensor.shape for tensor in table.values()}
            nbytes += sum(tensor.nbytes for tensor in table.values())
    except FileMissingError:
        if data is None:
            raise
    family, shown = first_class(
        (
            ("config.json", partial(class_of_config, config)),
            ("tensor shapes", partial(class_of_shapes, shapes)),
            ("name", partial(class_of_name, name)),
        )
    )
    return _measured(name, family, shown, _text(config.get("model_type")), shapes, nbytes)


def _measured(
    name: str,
    family: ModelClass | None,
    shown: str,
    model_type: str | None,
    shapes: Mapping[str, tuple[int, ...]],
    nbytes: int,
) -> ModelFamily:
    """Return a record with the size of the tensors, or without tensors the size in the name."""
    if not shapes:
        count = _count_in(name)
        source = "name" if count else ""
        return ModelFamily(name, family, shown, model_type, _size(count), count, size_source=source)
    count = sum(prod(shape) for shape in shapes.values())
    return ModelFamily(
        name, family, shown, model_type, _size(count), count, nbytes, "tensor shapes"
    )


def _by_name(name: str) -> ModelFamily:
    family, count = class_of_name(name), _count_in(name)
    return ModelFamily(
        name,
        family,
        "name" if family else "",
        size=_size(count),
        n_parameters=count,
        size_source="name" if count else "",
    )


def _count_in(name: str) -> int | None:
    """Return the number of parameters in a name such as "chat-7b" or "base-135M"."""
    result = _IN_NAME.search(PurePosixPath(name[-200:]).name)
    if result is None:
        return None
    scale = 1e9 if result.group(2) in "bB" else 1e6
    return round(float(result.group(1)) * scale) or None


def _size(count: int | None) -> Size | None:
    if count is None:
        return None
    for limit, size in _SIZES:
        if count <= limit:
            return size
    return "very large"


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) and value else None
