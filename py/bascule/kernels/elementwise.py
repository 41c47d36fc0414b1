"""Elementwise kernels: WGSL statements for one element, run over broadcast arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bascule.base import assets
from bascule.base.arrays import need_numpy, np
from bascule.errors import InputError
from bascule.kernels.broadcasting import Shape, broadcast_shape, index_of, strides_of
from bascule.kernels.buffer import DeviceBuffer
from bascule.kernels.kernel import Kernel
from bascule.kernels.kernel_device import SupportsKernels, kernel_device_for
from bascule.kernels.shader import Shader
from bascule.kernels.sources import label_of
from bascule.kernels.tuning import Tuning
from bascule.kernels.typed_names import TypedNames, checked_statements, typed_names

_NOTHING = {"n": 1, "rank": 1, "shape": [[1] * 4] * 2, "strides": [[0] * 4] * 16}


def elementwise(
    signature: str,
    operation: str,
    *,
    name: str = "elementwise",
    reference: Callable[..., Any] | None = None,
    device: SupportsKernels | None = None,
) -> ElementwiseKernel:
    """Make a kernel from WGSL statements: `elementwise("x: f32, y: f32 -> z: f32", "z = x * y")`.

    The statements assign each output, and may use the index `i: u32` of the element. Types are f32,
    f16, i32 and u32; a capital letter is the type of the call's arrays. It runs on `device`, else
    on the device of its buffers, else on one that is opened once. `reference` is a numpy function
    of the broadcast inputs: it proves the kernel and serves tiers without shaders. InputError or
    ShaderError for an invalid signature or statements.
    """
    return ElementwiseKernel(signature, operation, name, reference, device)


class ElementwiseKernel:
    """`await kernel(x, y, out=z)`; see `elementwise`.

    Arguments are arrays, `DeviceBuffer`s or numbers, broadcast as in numpy. The result is a
    `DeviceBuffer`, for several outputs a tuple, or `out`: an array or a buffer of that shape.
    """

    def __init__(
        self,
        signature: str,
        operation: str,
        name: str,
        reference: Callable[..., Any] | None,
        device: SupportsKernels | None,
    ) -> None:
        self._label = label_of(name)
        self._names = typed_names(signature, self._label)
        self._operation = checked_statements(operation, self._label, "operation")
        self._reference = reference
        self._device = device
        self._kernels: dict[object, Kernel] = {}

    def __repr__(self) -> str:
        return f"<ElementwiseKernel {self._label}: {self._names.text}>"

    async def __call__(self, *arguments: Any, out: Any = None, **named: Any) -> Any:
        """Run; InputError for arguments that do not fit, other errors as `Kernel`."""
        kernel, call = await self._prepared(arguments, out, named)
        return await kernel(**call)

    async def autotune(
        self, *arguments: Any, over: Mapping[str, Sequence[float]], out: Any = None, **named: Any
    ) -> Tuning:
        """Choose the fastest constants (it has WORKGROUP); see `Kernel.autotune`."""
        kernel, call = await self._prepared(arguments, out, named)
        return await kernel.autotune(over=over, **call)

    async def _prepared(
        self, arguments: Sequence[Any], out: Any, named: Mapping[str, Any]
    ) -> tuple[Kernel, dict[str, Any]]:
        """Return the kernel for these types, and its arguments."""
        await need_numpy(self._label, "Load numpy into this Pyodide first.")
        names = [name for name, _ in self._names.inputs]
        inputs = bound_inputs(self._label, names, arguments, named)
        has_reference = self._reference is not None
        held = [*inputs.values(), *(out if isinstance(out, tuple) else (out,))]
        device = await kernel_device_for(self._device, held, has_reference=has_reference)
        arrays = {name: as_operand(value) for name, value in inputs.items()}
        types = self._names.resolved(self._label, dtypes_of(inputs))
        shapes = [shape_of(array) for array in arrays.values()]
        target = broadcast_shape(shapes, self._label) if shapes else _shape_of_out(out, self._label)
        strides = [strides_of(shape, target) for shape in shapes]
        index = index_of(target, strides, self._label)
        outputs = outputs_of(self._label, [n for n, _ in self._names.outputs], out, target)
        key = id(device), tuple(types.items())
        if key not in self._kernels:
            text = _source(self._names, types, self._operation)
            shader = Shader(text, "bascule_main", self._label, sections=[(2, self._label)])
            self._kernels[key] = Kernel(device, shader, {}, self._wrapped())
        operands = {n: as_type(a, types[n], inputs[n]) for n, a in arrays.items()}
        count = {"count": index["n"], "bascule_index": [index, _NOTHING]}
        return self._kernels[key], {**operands, **outputs, **count}

    def _wrapped(self) -> Callable[..., Any] | None:
        """Return the reference, on broadcast inputs."""
        function = self._reference
        if function is None:
            return None
        names = [name for name, _ in self._names.inputs]

        def served(**known: Any) -> Any:
            inputs = {name: known[name] for name in names}
            shape = np.broadcast_shapes(*(np.shape(value) for value in inputs.values()))
            result = function(**inputs)
            many = result if isinstance(result, tuple) else (result,)
            return tuple(np.broadcast_to(each, shape or (1,)) for each in many)

        return served


def bound_inputs(
    label: str, names: Sequence[str], arguments: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inputs by name; InputError for a missing, unknown or repeated one."""
    if len(arguments) > len(names):
        raise InputError(label, f"{len(names)} inputs ({', '.join(names)})", f"{len(arguments)}")
    result = dict(zip(names, arguments, strict=False))
    for name, value in named.items():
        if name not in names or name in result:
            raise InputError(label, f"the inputs {', '.join(names)}", repr(name))
        result[name] = value
    for name in names:
        if name not in result:
            raise InputError(label, f"an argument for {name}", "none")
    return {name: result[name] for name in names}


def as_operand(value: Any) -> Any:
    """Return a buffer unchanged, anything else as an array."""
    return value if isinstance(value, DeviceBuffer) else np.asarray(value)


def shape_of(operand: Any) -> Shape:
    """Return its shape."""
    return tuple(operand.shape)


def dtypes_of(values: Mapping[str, Any]) -> dict[str, np.dtype[Any]]:
    """Return the dtypes of arrays and buffers; plain numbers have none."""
    return {
        name: value.dtype if isinstance(value, DeviceBuffer) else np.asarray(value).dtype
        for name, value in values.items()
        if not isinstance(value, int | float | list | tuple)
    }


def as_type(operand: Any, type: str, value: Any) -> Any:
    """Return an operand as a kernel takes it: at least one element, numbers of the wanted type."""
    if isinstance(operand, DeviceBuffer):
        return operand
    if isinstance(value, int | float | list | tuple):
        return operand.reshape(-1).tolist()
    return operand.reshape(1) if not operand.ndim else operand


def outputs_of(label: str, names: Sequence[str], out: Any, shape: Shape) -> dict[str, Any]:
    """Return the outputs by name: those passed, of that shape, or a shape for a new buffer."""
    outputs = list(out) if isinstance(out, tuple | list) else [out] * (out is not None)
    if out is None:
        return dict.fromkeys(names, shape or (1,))
    if len(outputs) != len(names):
        raise InputError(label, f"{len(names)} outputs ({', '.join(names)})", f"{len(outputs)}")
    for name, each in zip(names, outputs, strict=True):
        result = getattr(each, "shape", None)
        if result is None or tuple(result) != (shape or tuple(result)):
            expected = f"an array or a buffer of shape {shape}"
            raise InputError(f"{label}, {name}", expected, f"{type(each).__name__} {result or ''}")
    return dict(zip(names, outputs, strict=True))


def _shape_of_out(out: Any, label: str) -> Shape:
    """Return the shape of a call without inputs."""
    first: Any = out[0] if isinstance(out, tuple | list) and out else out
    if not hasattr(first, "shape"):
        raise InputError(label, "out=, an array or a buffer: there are no inputs", repr(out)[:80])
    return tuple(first.shape)


def _source(names: TypedNames, types: Mapping[str, str], operation: str) -> str:
    """Return the kernel: the statements start on line 2, after the head of their function."""
    parameters = ", ".join(f"{name}: {types[name]}" for name, _ in names.inputs)
    members = ", ".join(f"{name}: {types[name]}" for name, _ in names.outputs)
    variables = " ".join(f"var {name}: {types[name]};" for name, _ in names.outputs)
    results = ", ".join(name for name, _ in names.outputs)
    enable = "enable f16; " if "f16" in types.values() else ""
    head = f"{enable}fn bascule_operation(i: u32, {parameters}) -> BasculeOutputs {{ {variables}"
    bindings = [
        f"@group(0) @binding({at}) var<storage, {access}> {name}: array<{types[name]}>;"
        for at, (name, access) in enumerate(
            [
                *((n, "read") for n, _ in names.inputs),
                *((n, "read_write") for n, _ in names.outputs),
            ],
            start=1,
        )
    ]
    loads = [f"{name}[bascule_offset(0u, i, {at}u)]" for at, (name, _) in enumerate(names.inputs)]
    stores = [f"  {name}[i] = found.{name};" for name, _ in names.outputs]
    lines = [
        head,
        operation,
        f"; return BasculeOutputs({results}); }}",
        f"struct BasculeOutputs {{ {members} }}",
        "override WORKGROUP: u32 = 64u;",
        *bindings,
        "@compute @workgroup_size(WORKGROUP) fn bascule_main(",
        "  @builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {",
        "  let i = bascule_flat(id, groups, WORKGROUP);",
        "  if (i >= bascule_index[0].n) { return; }",
        f"  let found = bascule_operation({', '.join(['i', *loads])});",
        *stores,
        "}",
        assets.text("shaders/user/index.wgsl"),
    ]
    return "\n".join(lines)
