"""The kernel table: which shader, parts and constants serve a call on an adapter.

One function an op. Each answers with a `Kernel`: linked text, override constants, the operands in
binding order, and how its parameters and its launch follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.link import Linked, link
from bascule.program.program import Call, Sizes, Value

Workgroups = tuple[int, int, int]
Numbers = Mapping[str, int | float]

_MOST_WORKGROUPS = 65535
# Key and value tiles of attention_tile may take this much workgroup memory: WebGPU's least limit.
_TILE_NBYTES = 16384


@dataclass(frozen=True, slots=True)
class Kernel:
    """One call on one adapter. Equal `key`s share a pipeline."""

    name: str
    linked: Linked
    constants: Mapping[str, float]
    key: tuple[object, ...]
    operands: tuple[Value, ...]
    _numbers: Callable[[Sizes], Numbers]
    _launch: Callable[[], Workgroups]

    @property
    def label(self) -> str:
        """The shader file, for errors."""
        return f"{self.name}.wgsl"

    @property
    def wgsl(self) -> str:
        """The final text."""
        return self.linked.wgsl

    @property
    def bindings(self) -> str:
        """A letter a binding, as `Gpu.pipeline` takes them."""
        return self.linked.bindings

    def params(self, sizes: Sizes) -> bytes:
        """The uniform block for the actual sizes of a run."""
        return self.linked.pack(self._numbers(sizes))

    def launch(self) -> Workgroups:
        """Workgroup counts at the largest sizes; a kernel ends early past the actual ones."""
        return self._launch()


def select(call: Call, adapter: AdapterInfo) -> Kernel:
    """Choose the kernel for a call. Pure; the texts are linked once a process."""
    return _ROWS[call.op](call, adapter)


def _make(
    call: Call,
    name: str,
    numbers: Callable[[Sizes], Numbers],
    launch: Callable[[], Workgroups],
    *,
    parts: tuple[str, ...] = (),
    constants: Mapping[str, float] | None = None,
    consts: tuple[tuple[str, int], ...] = (),
    enables: str = "",
) -> Kernel:
    constants = constants or {}
    operands = (*(o for o in call.operands if o is not None), call.result)
    key = (name, parts, consts, enables, tuple(sorted(constants.items())))
    return Kernel(
        name, link(name, parts, consts, enables), constants, key, operands, numbers, launch
    )


def _flat(lanes: int, workgroup: int) -> Workgroups:
    """Workgroups for `lanes` lanes in a row, folded into y past the limit of one dimension."""
    return _folded(-(-lanes // workgroup))


def _folded(groups: int) -> Workgroups:
    x = min(groups, _MOST_WORKGROUPS)
    return x, -(-groups // x), 1


def _operand(call: Call, index: int) -> Value:
    value = call.operands[index]
    assert value is not None  # the graph refuses calls without their required operands
    return value


def _reduce(adapter: AdapterInfo) -> tuple[str, str]:
    """The reduce part and the directives it needs."""
    if "subgroups" not in adapter.features:
        return "reduce_shared", ""
    return "reduce_subgroup", "subgroups" if adapter.subgroups_enable else ""


def _embedding(call: Call, adapter: AdapterInfo) -> Kernel:
    del adapter
    vocabulary, cols = _operand(call, 1).limits

    def numbers(sizes: Sizes) -> Numbers:
        batch, tokens = _operand(call, 0).sizes(sizes)
        return {"batch": batch, "tokens": tokens, "cols": cols, "vocabulary": vocabulary}

    position = "position_add" if call.operands[2] else "position_none"
    row_bias = "row_bias_add" if call.operands[3] else "row_bias_none"
    lanes = prod(call.result.limits)
    return _make(call, "embedding", numbers, lambda: _flat(lanes, 64), parts=(position, row_bias))


def _linear(call: Call, adapter: AdapterInfo) -> Kernel:
    x, weight = _operand(call, 0), _operand(call, 1)
    cols, inner = weight.limits
    rows = prod(x.limits[:-1])

    def numbers(sizes: Sizes) -> Numbers:
        actual = prod(x.sizes(sizes)[:-1])
        return {"rows": actual, "cols": cols, "inner": inner, "inner4": inner // 4}

    bias = "bias_add" if call.operands[2] else "bias_none"
    parts = (bias, f"activation_{call.attribute('activation')}")
    if inner % 4:
        return _make(call, "linear_any", numbers, lambda: _flat(rows * cols, 64), parts=parts)
    name, side_x, side_y, lanes_x, lanes_y = _linear_shape(rows, adapter)

    def launch() -> Workgroups:
        return -(-cols // (side_x * lanes_x)), -(-rows // (side_y * lanes_y)), 1

    lanes = {"LANES_X": lanes_x, "LANES_Y": lanes_y}
    return _make(call, name, numbers, launch, parts=parts, constants=lanes)


def _linear_shape(rows: int, adapter: AdapterInfo) -> tuple[str, int, int, int, int]:
    """Kernel, rows and columns a lane, lanes a workgroup."""
    if adapter.software:
        return "linear_block", 8, 8, 8, 8
    # Few rows: a flat tile wastes fewer lanes on rows that are not there.
    if rows <= 16 or adapter.limits["maxComputeInvocationsPerWorkgroup"] < 256:
        return "linear_tile", 4, 4, 16, 4
    return "linear_tile", 4, 4, 16, 16


def _layer_norm(call: Call, adapter: AdapterInfo) -> Kernel:
    x = call.result
    cols, eps = x.limits[-1], call.attribute("eps")

    def numbers(sizes: Sizes) -> Numbers:
        return {"rows": prod(x.sizes(sizes)[:-1]), "cols": cols, "eps": float(eps)}

    residual = "residual_add" if call.operands[3] else "residual_none"
    rows = prod(x.limits[:-1])
    if adapter.software:
        return _make(call, "layer_norm_lane", numbers, lambda: _flat(rows, 16), parts=(residual,))
    reduce, enables = _reduce(adapter)
    return _make(
        call,
        "layer_norm",
        numbers,
        lambda: _folded(rows),
        parts=(residual, reduce),
        enables=enables,
    )


def _attention(call: Call, adapter: AdapterInfo) -> Kernel:
    qkv = _operand(call, 0)
    heads = call.attribute("heads")
    assert isinstance(heads, int)  # the shape rule has checked it
    size = qkv.limits[2] // 3 // heads
    vec4s = -(-size // 4)
    batch_limit, tokens_limit = qkv.limits[:2]

    def numbers(sizes: Sizes) -> Numbers:
        batch, tokens, _ = qkv.sizes(sizes)
        return {"batch": batch, "tokens": tokens, "heads": heads}

    parts = ("heads_any" if size % 4 else "heads_vec4",)
    consts = (("HEAD_SIZE", size), ("HEAD_VEC4S", vec4s))
    keys = min(16, _TILE_NBYTES // (2 * 16 * vec4s))
    if adapter.software or keys == 0:
        lanes = 16
        return _make(
            call,
            "attention_lane",
            numbers,
            lambda: (-(-tokens_limit // lanes), heads, batch_limit),
            parts=parts,
            consts=consts,
            constants={"WORKGROUP": lanes},
        )
    return _make(
        call,
        "attention_tile",
        numbers,
        lambda: (-(-tokens_limit // 64), heads, batch_limit),
        parts=parts,
        consts=consts,
        constants={"WORKGROUP": 64, "KEYS": keys},
    )


def _pool(call: Call, adapter: AdapterInfo) -> Kernel:
    del adapter
    x = _operand(call, 0)

    def numbers(sizes: Sizes) -> Numbers:
        batch, tokens, cols = x.sizes(sizes)
        return {"batch": batch, "tokens": tokens, "cols": cols}

    lanes = prod(call.result.limits)
    first = {"ONLY_FIRST": float(call.attribute("kind") == "cls")}
    return _make(call, "pool", numbers, lambda: _flat(lanes, 64), constants=first)


def _l2_normalise(call: Call, adapter: AdapterInfo) -> Kernel:
    x = call.result
    cols, eps = x.limits[-1], call.attribute("eps")

    def numbers(sizes: Sizes) -> Numbers:
        return {"rows": prod(x.sizes(sizes)[:-1]), "cols": cols, "eps": float(eps)}

    reduce, enables = _reduce(adapter)
    rows = prod(x.limits[:-1])
    return _make(
        call, "l2_normalise", numbers, lambda: _folded(rows), parts=(reduce,), enables=enables
    )


def _activate(call: Call, adapter: AdapterInfo) -> Kernel:
    del adapter
    x = call.result
    lanes = prod(x.limits)
    return _make(
        call,
        "activate",
        lambda sizes: {"n": prod(x.sizes(sizes))},
        lambda: _flat(lanes, 64),
        parts=(f"activation_{call.attribute('kind')}",),
    )


def _add(call: Call, adapter: AdapterInfo) -> Kernel:
    del adapter
    x, y = call.result, _operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        return {"n": prod(x.sizes(sizes)), "period": prod(y.sizes(sizes))}

    lanes = prod(x.limits)
    return _make(call, "add", numbers, lambda: _flat(lanes, 64))


_ROWS: dict[str, Callable[[Call, AdapterInfo], Kernel]] = {
    "embedding": _embedding,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "attention": _attention,
    "pool": _pool,
    "l2_normalise": _l2_normalise,
    "activate": _activate,
    "add": _add,
}
