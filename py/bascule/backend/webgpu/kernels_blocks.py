"""Rows of the kernel table for weights that stay in their file's blocks on the device.

All kernels walk K in runs of 32 weights; the part in the slot `weights` reads the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Variants, Workgroups, make_kernel
from bascule.backend.webgpu.launch import by_workgroup, fits, lane_per_element, operand
from bascule.base.dtypes import DType
from bascule.errors import InputError
from bascule.program.program import Call, Sizes, Value

RUN = 32
# Rows of weights per lane: eight columns, or four and their gates.
_WIDTH = 8
# The parts in the slot `weights` for formats that are read by runs.
_WEIGHTS: Mapping[DType, tuple[str, ...]] = {
    "f32": ("runs", "weights_f32"),
    "f16": ("runs", "weights_f16"),
    "bf16": ("runs", "weights_bf16"),
    "q4_0": ("runs", "packed", "packed_half", "weights_q4_0"),
    "q4_1": ("runs", "packed", "weights_q4_1"),
    "q8_0": ("runs", "packed", "packed_half", "weights_q8_0"),
    "q4_k": ("runs", "packed", "packed_k", "weights_q4_k"),
    "q5_k": ("runs", "packed", "packed_k", "weights_q5_k"),
    "q6_k": ("runs", "packed", "weights_q6_k"),
}
# Lanes of a workgroup: of blocks_lane and blocks_block, of blocks_group; of blocks_tile in x and y.
_LANES = (8,)
_GROUPS = (64, 128, 32)
_TILES = ((8, 8), (8, 4), (8, 16))
# Bytes of a row of weights in a tile, with padding and scales.
_TILE_ROWS = {"f32": 9 * 16, "f16": 9 * 8 + 16}
# float16 holds these weights, or the integers of their blocks, exactly.
_EXACT_IN_F16 = frozenset(_WEIGHTS) - {"f32", "bf16"}
# Up to this many rows the kernels for few rows are the default, and are candidates.
_FEW, _SOME = 4, 16


def linear(call: Call, adapter: AdapterInfo) -> Variants:
    """A linear layer over blocks."""
    bias = "bias_add" if call.operands[2] else "bias_none"
    residual = "residual_add" if call.operands[3] else "residual_none"
    activation = f"activation_{call.attribute('activation')}"
    return _variants(call, adapter, ("columns_plain", bias, activation, residual), _WIDTH)


def gated_linear(call: Call, adapter: AdapterInfo) -> Variants:
    """Two linear layers over blocks, the first of which gates the second."""
    activation = f"activation_{call.attribute('activation')}"
    if operand(call, 1).limits[1] % RUN and operand(call, 1).dtype == "f32":
        return _gated_any(call, activation)
    return _variants(call, adapter, ("columns_gated", activation), _WIDTH // 2)


def _gated_any(call: Call, activation: str) -> Variants:
    x, y = operand(call, 0), call.result
    inner, cols = x.limits[-1], y.limits[-1]

    def numbers(sizes: Sizes) -> Numbers:
        return {"rows": prod(x.sizes(sizes)[:-1]), "cols": cols, "inner": inner}

    return lane_per_element(call, numbers, name="gated_any", parts=(activation,))


def embedding(call: Call, adapter: AdapterInfo) -> Variants:
    """Rows of a table, in blocks or not, by token ids."""
    del adapter
    ids, table = operand(call, 0), operand(call, 1)
    plain = table.dtype == "f32"
    runs = _runs(table)

    def numbers(sizes: Sizes) -> Numbers:
        (batch, tokens), cols = ids.sizes(sizes), table.sizes(sizes)[1]
        params = {"batch": batch, "tokens": tokens, "cols": cols, "runs": runs}
        return {**params, **_part_of_table(call, table)}

    position = "position_add" if call.operands[2] else "position_none"
    row_bias = "row_bias_add" if call.operands[3] else "row_bias_none"
    before = "before_given" if call.operands[4] else "before_none"
    parts = (*(() if plain else _WEIGHTS[table.dtype]), position, row_bias, before)
    name = "embedding" if plain else "embedding_blocks"
    lanes = prod(ids.limits) * (table.limits[1] if plain else runs)
    return lane_per_element(call, numbers, name=name, lanes=lanes, parts=parts)


def token_embedding(call: Call, adapter: AdapterInfo) -> Variants:
    """Rows of a table, in blocks or not, by the tokens in a state."""
    del adapter
    (table, tokens), y = (operand(call, 0), operand(call, 1)), call.result
    plain = table.dtype == "f32"
    cols, runs = table.limits[1], _runs(table)

    def numbers(sizes: Sizes) -> Numbers:
        (length, _), (slots,) = y.sizes(sizes), tokens.sizes(sizes)
        params = {"tokens": length, "cols": cols, "runs": runs, "slots": slots}
        return {**params, **_part_of_table(call, table)}

    name = "token_embedding" if plain else "token_embedding_blocks"
    before = "before_given" if call.operands[3] else "before_none"
    parts = (*(() if plain else _WEIGHTS[table.dtype]), before)
    lanes = y.limits[0] * (cols if plain else runs)
    return lane_per_element(call, numbers, name=name, lanes=lanes, parts=parts)


def _part_of_table(call: Call, table: Value) -> Numbers:
    """Return which rows of which table an embedding has: `first`, `rows` and `whole`."""
    rows = table.limits[0]
    return {"first": call.integer("first"), "rows": rows, "whole": call.integer("whole") or rows}


def _runs(weight: Value) -> int:
    """Return the runs per row; InputError if a format that is read by runs has a remainder."""
    inner = weight.limits[1]
    if inner % RUN and weight.dtype != "f32":
        raise InputError(f"weight {weight.name}", f"rows of a multiple of {RUN}", f"{inner}")
    return inner // RUN


def _variants(
    call: Call, adapter: AdapterInfo, columns: tuple[str, ...], per_lane: int
) -> Variants:
    """Return candidates; `columns` are the parts of that slot, `per_lane` a lane's columns of y."""
    x, weight, y = operand(call, 0), operand(call, 1), call.result
    cols, runs = y.limits[-1], _runs(weight)
    rows = prod(x.limits[:-1])
    shared = (*_WEIGHTS[weight.dtype], *columns)

    def numbers(sizes: Sizes) -> Numbers:
        actual = prod(x.sizes(sizes)[:-1])
        return {"rows": actual, "cols": cols, "runs": runs}

    def launch(width: int, height: int) -> Workgroups:
        return -(-cols // (width * per_lane)), -(-rows // height), 1

    def make_lane(name: str, height: int, lanes: int, spread: str, enables: str = "") -> Kernel:
        return make_kernel(
            call,
            name,
            numbers,
            lambda: launch(lanes, height),
            variant=f"{lanes} {spread}",
            parts=(*shared, f"spread_{spread}"),
            constants={"LANES": lanes},
            enables=enables,
        )

    def make_tile(kind: str, lanes_x: int, lanes_y: int) -> Kernel:
        return make_kernel(
            call,
            "blocks_tile",
            numbers,
            lambda: launch(lanes_x, 4 * lanes_y),
            variant=f"{lanes_x}x{lanes_y} {kind}",
            parts=(*shared, f"tile_{kind}"),
            constants={"LANES_X": lanes_x, "LANES_Y": lanes_y},
            enables="f16" if kind == "f16" else "",
        )

    spreads = [("none", "")]
    if "subgroups" in adapter.features:
        spreads.insert(0, ("subgroup", "subgroups" if adapter.subgroups_enable else ""))
    lanes = [partial(make_lane, "blocks_lane", 1, n, *s) for s in spreads for n in _LANES]
    blocks = [partial(make_lane, "blocks_block", 8, n, *s) for s in spreads for n in _LANES]
    groups = by_workgroup(
        call,
        numbers,
        lambda _: launch(1, 1),
        [n for n in _GROUPS if fits(adapter, n)],
        name="blocks_group",
        parts=(*shared, "spread_none"),
    )
    tiles = [
        partial(make_tile, kind, *tile)
        for kind in _tile_kinds(weight.dtype, adapter)
        for tile in _TILES
        if _tile_fits(kind, tile, rows, adapter)
    ]
    few = [*lanes, *groups] if adapter.software else [*groups, *lanes]
    # On a CPU barriers do not pay off, and tiles take seconds to compile.
    many = blocks if adapter.software else [*tiles, *blocks]
    if rows <= _FEW:
        return few if rows == 1 else [*few, *many]
    return [*many, *few] if rows <= _SOME else many


def _tile_kinds(dtype: DType, adapter: AdapterInfo) -> tuple[str, ...]:
    """Return the parts in the slot `tile`: f16 if the adapter has it and nothing is lost.

    float16 is the default nowhere: which is faster depends on the adapter's registers and memory
    banks, and tuning finds out.
    """
    f16 = "shader-f16" in adapter.features and dtype in _EXACT_IN_F16
    return ("f32", "f16") if f16 else ("f32",)


def _tile_fits(kind: str, tile: tuple[int, int], rows: int, adapter: AdapterInfo) -> bool:
    """Whether the device allows that tile, and most of its rows exist."""
    lanes_x, lanes_y = tile
    # A row of x takes 8 vec4s, padding and, with f16, two sums.
    x_nbytes = 4 * lanes_y * (9 * 16 + (8 if kind == "f16" else 0))
    tiles_nbytes = _WIDTH * lanes_x * _TILE_ROWS[kind] + x_nbytes
    return fits(adapter, lanes_x * lanes_y, tiles_nbytes) and (lanes_y <= 4 or 2 * lanes_y < rows)
