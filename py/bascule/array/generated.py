"""WGSL for one kernel: a fixed skeleton, the rows' templates, and what follows from shapes.

Everything that differs between two runs of one program (sizes, strides, offsets, numbers) is a
field of Params, so that its text, and with it the compiled pipeline, is the same.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bascule.array.dtypes import DType, Kind, kind_of
from bascule.array.graph import Node, Shape, Strided, dense
from bascule.array.plan import is_scalar
from bascule.array.rows import COMBINATIONS, ROWS
from bascule.array.words import to_words
from bascule.base import assets

TYPES: Mapping[Kind, str] = {"b": "bool", "i": "i32", "u": "u32", "f": "f32"}
LOADS: Mapping[Kind, str] = {
    "b": "({} != 0u)", "i": "bitcast<i32>({})", "u": "{}", "f": "bitcast<f32>({})",
}  # fmt: skip
_BITS: Mapping[Kind, str] = {
    "b": "select(0u, 1u, v)", "i": "bitcast<u32>(v)", "u": "v", "f": "bitcast<u32>(v)",
}  # fmt: skip
# Wraps a result to the range of a type that is narrower than its 32 bits.
_NARROWED = {
    "int8": "(({} << 24u) >> 24u)",
    "int16": "(({} << 16u) >> 16u)",
    "uint8": "({} & 255u)",
    "uint16": "({} & 65535u)",
    "float16": "to_half({})",
}
_EXACT = ("copy", "where", "maximum", "minimum")
_CASTS: Mapping[tuple[Kind, Kind], str] = {
    ("b", "i"): "select(0, 1, {})",
    ("b", "u"): "select(0u, 1u, {})",
    ("b", "f"): "select(0.0, 1.0, {})",
    ("i", "b"): "({} != 0)",
    ("u", "b"): "({} != 0u)",
    ("f", "b"): "((bitcast<u32>({}) & 0x7fffffffu) != 0u)",
    ("i", "u"): "bitcast<u32>({})",
    ("u", "i"): "bitcast<i32>({})",
    ("i", "f"): "f32({})",
    ("u", "f"): "f32({})",
    ("f", "i"): "to_i32({})",
    ("f", "u"): "to_u32({})",
}


@dataclass(frozen=True, slots=True)
class Generated:
    """A kernel for one step: its text, the nodes whose memory it reads in order, its params."""

    wgsl: str
    label: str
    reads: tuple[Node, ...]
    params: bytes

    @property
    def bindings(self) -> str:
        """A letter per binding, as `Gpu.pipeline` takes them: params, inputs, the output."""
        return "u" + "r" * len(self.reads) + "w"


@dataclass(slots=True)
class _Leaf:
    """The layout of an operand's elements, by the axes of the kernel."""

    name: str
    strides: tuple[int, ...]
    offset: int


@dataclass(slots=True)
class Expression:
    """Builds `element(at, step)`: `kept` axes are numbered by `at`, the others by `step`."""

    root: Node
    inline: frozenset[int]
    reduced: tuple[int, ...] = ()
    reads: list[Node] = field(default_factory=list[Node])
    _leaves: list[_Leaf] = field(default_factory=list[_Leaf])
    _numbers: list[int] = field(default_factory=list[int])
    _lines: list[str] = field(default_factory=list[str])
    _names: dict[int, str] = field(default_factory=dict[int, str])
    _parts: set[str] = field(default_factory=set[str])

    def kernel(
        self,
        skeleton: str,
        head: Mapping[str, int],
        dtype: DType,
        combination: str = "",
        extra: Node | None = None,
        unrolled: int = 0,
    ) -> Generated:
        """Return the WGSL. `head` are the skeleton's own params; the result is of `dtype`.

        `unrolled` steps, if any, are combined in the text instead of by the skeleton.
        """
        result = self._value(self.root)
        shape, n_kept, strides = self._space()
        fields: dict[str, int] = dict(head)
        lines = _coordinates(shape, n_kept, fields)
        for leaf, steps in zip(self._leaves, strides, strict=True):
            lines.append(_address(leaf, steps, fields))
        fields |= {f"k{i}": number for i, number in enumerate(self._numbers)}
        kind = kind_of(self.root.dtype)
        function = (
            f"fn {'part' if unrolled else 'element'}(at: u32, step: u32) -> {TYPES[kind]} {{\n"
            + "".join(f"  {line}\n" for line in [*lines, *self._lines])
            + f"  return {result};\n}}\n"
            + (_combined_parts(kind, unrolled) if unrolled else "")
        )
        texts = [
            assets.text(f"shaders/{skeleton}.wgsl"),
            assets.text("shaders/parts/array_core.wgsl"),
        ]
        texts += [assets.text(f"shaders/parts/{name}.wgsl") for name in sorted(self._parts)]
        out = "vec4u" if skeleton == "array_elementwise" else "u32"
        texts += [_declared(fields, len(self.reads) + (extra is not None), out), function]
        texts.append(_tail(skeleton, kind, dtype, combination, len(self.reads) if extra else -1))
        reads = (*self.reads, extra) if extra else tuple(self.reads)
        packed = struct.pack(f"<{len(fields)}I", *(n & 0xFFFFFFFF for n in fields.values()))
        params = packed.ljust((len(packed) + 15) & ~15, b"\0")
        return Generated("".join(texts), f"{skeleton}.wgsl", reads, params)

    def _value(self, root: Node) -> str:
        """Return the name of a node's value; nodes are visited without recursion."""
        stack = [root]
        while stack:
            node = stack[-1]
            if id(node) in self._names:
                stack.pop()
                continue
            inputs = node.inputs[1:] if node.op == "gather" else node.inputs
            missing = [] if self._is_leaf(node) else [i for i in inputs if id(i) not in self._names]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            self._names[id(node)] = self._emit(node)
        return self._names[id(root)]

    def _is_leaf(self, node: Node) -> bool:
        return node.is_known or node.op in ("view", "iota") or id(node) not in self.inline

    def _emit(self, node: Node) -> str:
        kind = kind_of(node.dtype)
        if self._is_leaf(node):
            text = self._leaf(node, kind)
        elif node.op == "gather":
            buffer, index = self._buffer(node.inputs[0]), self._names[id(node.inputs[1])]
            text = LOADS[kind].format(f"x{buffer}[{index}]")
        elif node.op == "bits":
            text = f"bitcast<u32>({self._names[id(node.inputs[0])]})"
        elif node.op == "cast":
            text = self._cast(node.inputs[0], node.dtype)
        else:
            text = self._row(node)
        name = f"v{len(self._names)}"
        self._lines.append(f"let {name} = {text};")
        return name

    def _row(self, node: Node) -> str:
        row = ROWS[node.op]
        kind = kind_of(node.inputs[0].dtype)
        operands = {
            letter: self._names[id(each)] for letter, each in zip("abc", node.inputs, strict=False)
        }
        text = row.wgsl[kind].format(**operands)
        if kind == "f" or node.op == "philox":
            self._parts.update(row.parts)
        narrowed = _NARROWED.get(node.dtype.name) if node.op not in _EXACT else None
        return narrowed.format(text) if narrowed else text

    def _cast(self, source: Node, to: DType) -> str:
        before, after = kind_of(source.dtype), kind_of(to)
        text = _CASTS.get((before, after), "{}").format(self._names[id(source)])
        grows = to.itemsize > source.dtype.itemsize and before == after
        narrowed = None if grows or before == "b" else _NARROWED.get(to.name)
        return narrowed.format(text) if narrowed else text

    def _leaf(self, node: Node, kind: Kind) -> str:
        if is_scalar(node):
            assert node.host is not None
            self._numbers.append(int(to_words(node.host).reshape(-1)[0]))
            return LOADS[kind].format(f"params.k{len(self._numbers) - 1}")
        name = f"i{len(self._leaves)}"
        if node.op == "iota" and not node.is_known:
            lies = node.attribute or Strided(0, dense(node.shape))
            self._leaves.append(_Leaf(name, self._aligned(node.shape, lies.strides), lies.offset))
            return name if kind == "u" else f"{TYPES[kind]}({name})"
        base, layout = node, Strided(0, dense(node.shape))
        if node.op == "view" and not node.is_known:
            base, layout = node.inputs[0], node.attribute
        strides = self._aligned(node.shape, layout.strides)
        self._leaves.append(_Leaf(name, strides, layout.offset))
        return LOADS[kind].format(f"x{self._buffer(base)}[{name}]")

    def _buffer(self, node: Node) -> int:
        for at, other in enumerate(self.reads):
            if other is node:
                return at
        self.reads.append(node)
        return len(self.reads) - 1

    def _aligned(self, shape: Shape, strides: Sequence[int]) -> tuple[int, ...]:
        """Return strides by the axes of the root: 0 where an operand is broadcast."""
        missing = len(self.root.shape) - len(shape)
        results = [0 if n == 1 else step for n, step in zip(shape, strides, strict=True)]
        return tuple(results) if missing < 0 else (0,) * missing + tuple(results)

    def _space(self) -> tuple[tuple[int, ...], int, list[list[int]]]:
        """Return the axes that the kernel numbers, as few as possible: (sizes, by `at`, ...)."""
        shape = self.root.shape
        kept = [axis for axis in range(len(shape)) if axis not in self.reduced]
        steps = [leaf.strides[-len(shape) :] if shape else () for leaf in self._leaves]
        sizes: list[int] = []
        results: list[list[int]] = [[] for _ in self._leaves]
        n_kept = 0
        for part in (kept, list(self.reduced)):
            start = len(sizes)
            for axis in part:
                if shape[axis] == 1:
                    continue
                mine = [step[axis] for step in steps]
                joins = len(sizes) > start and all(
                    before[-1] == step * shape[axis]
                    for before, step in zip(results, mine, strict=True)
                )
                if joins:
                    sizes[-1] *= shape[axis]
                else:
                    sizes.append(shape[axis])
                for before, step in zip(results, mine, strict=True):
                    if joins:
                        before[-1] = step
                    else:
                        before.append(step)
            if part is kept:
                n_kept = len(sizes)
        return tuple(sizes), n_kept, results


def _coordinates(shape: Sequence[int], n_kept: int, fields: dict[str, int]) -> list[str]:
    """Return lines that split `at` and `step` into c0, c1, ...; the sizes go into the fields."""
    lines: list[str] = []
    for source, first, end in (("at", 0, n_kept), ("step", n_kept, len(shape))):
        rest = source
        for axis in range(end - 1, first - 1, -1):
            if axis == first:
                lines.append(f"let c{axis} = {rest};")
                break
            fields[f"d{axis}"] = shape[axis]
            lines.append(f"let c{axis} = {rest} % params.d{axis};")
            lines.append(f"let r{axis} = {rest} / params.d{axis};")
            rest = f"r{axis}"
    return lines


def _address(leaf: _Leaf, steps: Sequence[int], fields: dict[str, int]) -> str:
    terms: list[str] = []
    if leaf.offset:
        fields[f"o_{leaf.name}"] = leaf.offset
        terms.append(f"params.o_{leaf.name}")
    for axis, step in enumerate(steps):
        if step == 1:
            terms.append(f"c{axis}")
        elif step:
            fields[f"s{axis}_{leaf.name}"] = step
            terms.append(f"c{axis} * params.s{axis}_{leaf.name}")
    return f"let {leaf.name} = {' + '.join(terms) or '0u'};"


def _combined_parts(kind: Kind, n: int) -> str:
    """Return `element` as the combination of `part` at the steps below n."""
    text = "part(at, 0u)"
    for step in range(1, n):
        text = f"combine({text}, part(at, {step}u))"
    return f"fn element(at: u32, step: u32) -> {TYPES[kind]} {{ return {text}; }}\n"


def _declared(fields: Mapping[str, int], n_inputs: int, out: str) -> str:
    names = ", ".join(f"{name}: u32" for name in fields)
    text = f"struct Params {{ {names} }}\n@group(0) @binding(0) var<uniform> params: Params;\n"
    for at in range(n_inputs):
        text += f"@group(0) @binding({at + 1}) var<storage, read> x{at}: array<u32>;\n"
    return text + f"@group(0) @binding({n_inputs + 1}) var<storage, read_write> y: array<{out}>;\n"


def _tail(skeleton: str, kind: Kind, dtype: DType, combination: str, extra: int) -> str:
    """Return how results are stored, and what else a skeleton calls."""
    kinds = TYPES[kind]
    text = f"fn bits(v: {kinds}) -> u32 {{ return {_BITS[kind]}; }}\n"
    narrowed = _NARROWED.get(dtype.name, "{}").format("v") if combination else "v"
    text += f"fn stored(v: {kinds}) -> u32 {{ return bits({narrowed}); }}\n"
    if skeleton == "array_best":
        sign = "<" if combination == "min" else ">"
        better = f"better_{combination}_f(a, b)" if kind == "f" else f"a {sign} b"
        text += f"fn better(a: {kinds}, b: {kinds}) -> bool {{ return {better}; }}\n"
        known = f"x{extra}[at * params.extent + c]" if extra >= 0 else "c"
        text += f"fn candidate(at: u32, c: u32) -> u32 {{ return {known}; }}\n"
        return text
    if combination:
        row = COMBINATIONS[combination]
        text += f"fn identity() -> {kinds} {{ return {row.identity[kind]}; }}\n"
        body = row.combine[kind]
        text += f"fn combine(a: {kinds}, b: {kinds}) -> {kinds} {{ return {body}; }}\n"
    if skeleton == "array_scan":
        before = LOADS[kind].format(f"x{extra}[i]") if extra >= 0 else "identity()"
        text += f"fn start(i: u32) -> {kinds} {{ return {before}; }}\n"
    return text
