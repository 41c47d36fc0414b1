"""Map the bytes of a model's files to parameters; the same for all file formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bascule.base.dtypes import block_of
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.program.program import Parameter
from bascule.weights.pieces import ELEMENT_NBYTES, RAW, Piece
from bascule.weights.safetensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Planned:
    """A piece with its file and its parameter."""

    file: str
    parameter: str
    piece: Piece


def plan_pieces(
    headers: Mapping[str, Mapping[str, TensorInfo]],
    parameters: Sequence[Parameter],
    targets: Mapping[str, int],
    place: str,
) -> list[Planned]:
    """Plan which bytes go where, in the order of the parameters, which is the order of a pass.

    ModelFileError if a tensor is missing or has the wrong shape, or another type than a parameter
    that is copied unchanged; UnsupportedModelError for a tensor of integers where float32 is
    needed.
    """
    tensors = {name: (file, t) for file, table in headers.items() for name, t in table.items()}
    plan: list[Planned] = []
    for parameter in parameters:
        results = [_find(name, tensors, place) for name in parameter.tensors]
        _check_shape(parameter, [tensor for _, tensor in results], place)
        offset = before = 0
        for file, tensor in results:
            rows = tensor.shape[0] if tensor.shape else 1
            skipped, count = _rows_of(parameter, before, rows)
            before += rows
            if not count and rows:
                continue
            if offset % 4:
                problem = f"{parameter.name} stacks a tensor whose bytes are no multiple of 4"
                raise UnsupportedModelError(place, problem)
            inner = prod(tensor.shape[1:])
            kind, nbytes = _kind(parameter, tensor, count * inner, place)
            start = tensor.start + _kind(parameter, tensor, skipped * inner, place)[1]
            piece = Piece(start, nbytes, targets[parameter.name], offset, kind)
            plan.append(Planned(file, parameter.name, piece))
            offset += nbytes if kind == RAW else 4 * count * inner
    return plan


def _rows_of(parameter: Parameter, before: int, rows: int) -> tuple[int, int]:
    """Return how many rows to skip and to take of a tensor that follows `before` rows."""
    if not parameter.rows:
        return 0, rows
    start = min(max(parameter.first - before, 0), rows)
    stop = min(max(parameter.first + parameter.rows - before, start), rows)
    return start, stop - start


def _find(
    name: str,
    tensors: Mapping[str, tuple[str, TensorInfo]],
    place: str,
) -> tuple[str, TensorInfo]:
    result = tensors.get(name)
    if result is None:
        raise ModelFileError(place, f"it lacks the tensor {name!r}")
    return result


def _kind(parameter: Parameter, tensor: TensorInfo, n_elements: int, place: str) -> tuple[str, int]:
    """Return how a tensor's bytes are converted, and their number."""
    problem = f"tensor {tensor.name!r} is {tensor.dtype}"
    if parameter.dtype == "f32":
        if tensor.dtype not in ELEMENT_NBYTES:
            known = "F32, F16 and BF16"
            raise UnsupportedModelError(place, f"{problem}, and this version reads {known} there")
        return tensor.dtype, n_elements * ELEMENT_NBYTES[tensor.dtype]
    wanted = parameter.dtype.upper()
    if tensor.dtype != wanted:
        raise ModelFileError(place, f"{problem}, and {parameter.name} has to be {wanted}")
    block = block_of(parameter.dtype)
    return RAW, n_elements // block.n_elements * block.nbytes


def _check_shape(parameter: Parameter, tensors: Sequence[TensorInfo], place: str) -> None:
    """Check that tensors stacked on their first axis form the parameter, or contain its rows."""
    tails = {tensor.shape[1:] for tensor in tensors}
    height = sum(tensor.shape[0] if tensor.shape else 0 for tensor in tensors)
    total = parameter.whole or height
    enough = height == total and parameter.first + parameter.rows <= height
    stacked = (parameter.rows or height, *next(iter(tails)))
    fits = stacked == parameter.shape or (parameter.rows == 1 and stacked[1:] == parameter.shape)
    if len(tails) != 1 or not enough or not fits:
        shapes = ", ".join(f"{t.name} {list(t.shape)}" for t in tensors)
        which = f" (rows {parameter.first} on)" if parameter.rows else ""
        wanted = f"{parameter.name} {list(parameter.shape)}{which} of the model's settings"
        raise ModelFileError(place, f"{shapes} does not make {wanted}")
