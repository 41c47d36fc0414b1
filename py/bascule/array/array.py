"""The array class: its properties, reading it, and Python's operators."""

# pyright: reportPrivateUsage=false
# An array's node is private to this package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bascule.array import build, dtypes, indexing
from bascule.array.dtypes import DType
from bascule.array.errors import DTypeError, OutOfRangeError, ShapeError
from bascule.array.graph import Node
from bascule.array.matrices import multiplied
from bascule.array.place import (
    ArrayDevice,
    at_once,
    compute_if_possible,
    device,
    numbers_at_once,
)
from bascule.base.arrays import np

_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip

# After this many operations a graph is computed although nothing has read it: its nodes take about
# 1 KB each, and planning them costs more than one large graph gains.
MAX_DEPTH = 4096


class Array:
    """An array on a device. Operations on it are recorded; reading it computes them.

    `await x.numpy()` reads it anywhere; `np.asarray(x)`, `float(x)`, `bool(x)`, `int(x)` and
    printing read it in synchronous code, in a page through JSPI or else a canvas. Arrays do not
    share mutable memory: `x[...] = y` changes this array and no view of it.
    """

    __array_priority__ = 100
    __slots__ = ("__weakref__", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        node.held += 1
        if node.depth >= MAX_DEPTH:
            compute_if_possible(node)

    def __del__(self) -> None:
        node = getattr(self, "_node", None)
        if node is not None:
            node.held -= 1

    @property
    def dtype(self) -> DType:
        """A numpy dtype: bool, int8 to int32, uint8 to uint32, float16 or float32."""
        return self._node.dtype

    @property
    def device(self) -> ArrayDevice:
        """The device of its memory."""
        return self._node.device

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return self._node.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._node.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._node.size

    @property
    def nbytes(self) -> int:
        """Bytes of its elements in numpy; a GPU uses 4 for each."""
        return self._node.size * self._node.dtype.itemsize

    @property
    def T(self) -> Array:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError("x.T", "a matrix", f"shape {self.shape}", hint="Use xp.permute_dims.")
        return Array(build.permute(self._node, (1, 0)))

    @property
    def mT(self) -> Array:
        """The transposes of the matrices in the last two axes."""
        if self.ndim < 2:
            raise ShapeError("x.mT", "at least two axes", f"shape {self.shape}")
        axes = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return Array(build.permute(self._node, axes))

    async def numpy(self) -> Any:
        """Compute and read it: a new numpy array.

        DeviceLostError or GpuError if the device was lost or has rejected the work.
        """
        if self._node.host is None:
            await self._node.device.read((self._node,))
        return np.array(self._node.host, self.dtype)

    def to_device(self, device_: Any, /, *, stream: None = None) -> Array:
        """Return a copy on another device; between two devices it passes through numpy."""
        if stream is not None:
            raise DTypeError("to_device", "stream=None", repr(stream))
        place = device(device_)
        if place is self.device:
            return self
        return Array(build.constant(np.array(self._numbers("to_device")), place))

    def _numbers(self, what: str) -> Any:
        return numbers_at_once(self._node, what)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ShapeError("np.asarray", "copy=True or None", "copy=False: numbers are copied")
        return np.array(self._numbers("np.asarray(x)"), dtype or self.dtype)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        import bascule.array as xp

        if api_version is not None and api_version not in xp.VERSIONS:
            raise ShapeError("__array_namespace__", f"one of {xp.VERSIONS}", repr(api_version))
        return xp

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return self.__array_namespace__().numpy_functions.call_function(function, args, options)

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Any:
        called = self.__array_namespace__().numpy_functions.call_ufunc
        return called(ufunc, method, operands, options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU: what __dlpack__ gives is a copy there

    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a copy in numpy's memory as a DLPack capsule: WebGPU buffers have none."""
        del stream
        shared = copy is False
        if shared and (self._node.host is None or self._node.op != "data"):
            raise BufferError("An array of a device cannot be exported without a copy.")
        if dl_device is not None and tuple(dl_device) != (1, 0):
            raise BufferError(f"Arrays are exported to the CPU (1, 0), not to {dl_device}.")
        numbers = self._numbers("__dlpack__")
        numbers = numbers if shared else np.array(numbers)
        if max_version is None or np.lib.NumpyVersion(np.__version__) < "2.1.0":
            return numbers.__dlpack__()  # without versions a consumer may not write
        return numbers.__dlpack__(max_version=max_version)

    def _one(self, what: str) -> Any:
        if self.size != 1:
            expected = "an array of one element"
            raise ShapeError(what, expected, f"shape {self.shape}", hint="Index it, or reduce it.")
        return self._numbers(what).reshape(-1)[0]

    def __bool__(self) -> bool:
        return bool(self._one("bool(x)"))

    def __int__(self) -> int:
        return int(self._one("int(x)"))

    def __float__(self) -> float:
        return float(self._one("float(x)"))

    def __complex__(self) -> complex:
        return complex(self._one("complex(x)"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.ndim:
            raise DTypeError("an index", "a whole number", f"{self.dtype} of shape {self.shape}")
        return int(self._one("an index"))

    def __len__(self) -> int:
        if not self.ndim:
            raise DTypeError("len(x)", "an array with axes", "shape ()")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.ndim:
            raise DTypeError("iteration", "an array with axes", "shape ()")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        try:
            shown = np.array2string(self._numbers("printing"), separator=", ", prefix="Array(")
        except Exception:
            shown = f"<not read yet>, shape={self.shape}"
        return f"Array({shown}, dtype={self.dtype}, device={str(self.device)!r})"

    def __getitem__(self, key: Any) -> Array:
        return Array(indexing.get(self._node, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._replace_node(indexing.put(self._node, key, value))

    def _replace_node(self, node: Node) -> None:
        node.held += 1
        self._node.held -= 1
        self._node = node

    def __neg__(self) -> Array:
        return Array(build.elementwise("negative", self))

    def __pos__(self) -> Array:
        return Array(build.elementwise("positive", self))

    def __abs__(self) -> Array:
        return Array(build.elementwise("abs", self))

    def __invert__(self) -> Array:
        return Array(build.elementwise("bitwise_invert", self))

    def __matmul__(self, other: Any) -> Array:
        return Array(multiplied(self, other)) if isinstance(other, Array) else NotImplemented

    def __imatmul__(self, other: Any) -> Array:
        result = self @ other
        if result.shape != self.shape:
            raise ShapeError("x @= y", f"a result of shape {self.shape}", str(result.shape))
        self._replace_node(build.cast(result._node, self.dtype))
        return self

    if TYPE_CHECKING:  # defined below, from _OPERATORS

        def __add__(self, other: Any) -> Array: ...
        def __radd__(self, other: Any) -> Array: ...
        def __sub__(self, other: Any) -> Array: ...
        def __rsub__(self, other: Any) -> Array: ...
        def __mul__(self, other: Any) -> Array: ...
        def __rmul__(self, other: Any) -> Array: ...
        def __truediv__(self, other: Any) -> Array: ...
        def __rtruediv__(self, other: Any) -> Array: ...
        def __floordiv__(self, other: Any) -> Array: ...
        def __rfloordiv__(self, other: Any) -> Array: ...
        def __mod__(self, other: Any) -> Array: ...
        def __rmod__(self, other: Any) -> Array: ...
        def __pow__(self, other: Any) -> Array: ...
        def __rpow__(self, other: Any) -> Array: ...
        def __and__(self, other: Any) -> Array: ...
        def __rand__(self, other: Any) -> Array: ...
        def __or__(self, other: Any) -> Array: ...
        def __ror__(self, other: Any) -> Array: ...
        def __xor__(self, other: Any) -> Array: ...
        def __rxor__(self, other: Any) -> Array: ...
        def __lshift__(self, other: Any) -> Array: ...
        def __rlshift__(self, other: Any) -> Array: ...
        def __rshift__(self, other: Any) -> Array: ...
        def __rrshift__(self, other: Any) -> Array: ...
        def __lt__(self, other: Any) -> Array: ...
        def __le__(self, other: Any) -> Array: ...
        def __gt__(self, other: Any) -> Array: ...
        def __ge__(self, other: Any) -> Array: ...
        def __eq__(self, other: Any) -> Array: ...  # pyright: ignore[reportIncompatibleMethodOverride]
        def __ne__(self, other: Any) -> Array: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _binary(name: str, op: str) -> None:
    """Give the class an operator, its reflection, and its in-place form if there is one."""

    def forward(self: Array, other: Any) -> Any:
        return Array(build.elementwise(op, self, other)) if _fits(other) else NotImplemented

    def reflected(self: Array, other: Any) -> Any:
        return Array(build.elementwise(op, other, self)) if _fits(other) else NotImplemented

    def in_place(self: Array, other: Any) -> Any:
        result = build.elementwise(op, self, other)
        where = f"x.__i{name}__(y)"
        if result.shape != self.shape:
            raise ShapeError(where, f"a result of shape {self.shape}", str(result.shape))
        if result.dtype != self.dtype:
            raise DTypeError(where, f"a result of dtype {self.dtype}", str(result.dtype))
        self._replace_node(result)
        return self

    for prefix, function in (("", forward), ("r", reflected), ("i", in_place)):
        function.__name__ = f"__{prefix}{name}__"
        setattr(Array, function.__name__, function)


def _comparison(name: str, op: str) -> None:
    def compare(self: Array, other: Any) -> Any:
        return Array(build.elementwise(op, self, other)) if _fits(other) else NotImplemented

    compare.__name__ = f"__{name}__"
    setattr(Array, compare.__name__, compare)


def _fits(other: object) -> bool:
    return isinstance(other, Array) or build.is_number(other)


for _name, _op in _OPERATORS.items():
    _binary(_name, _op)
for _name, _op in (
    ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"),
    ("gt", "greater"), ("ge", "greater_equal"),
):  # fmt: skip
    _comparison(_name, _op)


async def evaluate(*arrays: Array) -> None:
    """Compute these arrays together, without reading them: `await xp.eval(x, y)`.

    Errors as `Array.numpy`.
    """
    by_device: dict[int, list[Node]] = {}
    for array in arrays:
        node = build.node_of(array, "xp.eval")
        by_device.setdefault(id(node.device), []).append(node)
    for nodes in by_device.values():
        await nodes[0].device.compute(nodes)


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Array:
    """Make an array of numbers, nested lists, a numpy array or an array; its numbers are copied.

    64-bit numbers in lists become int32 and float32; a numpy array of 64 bits raises DTypeError,
    which names the closest dtype, unless `dtype` is given.
    """
    from bascule.array.place import device as place_of

    wanted = None if dtype is None else dtypes.checked(dtype)
    if isinstance(obj, Array):
        place = obj.device if device is None else place_of(device)
        if copy is not True and place is obj.device and wanted in (None, obj.dtype):
            return obj
        if copy is False:
            expected = "the dtype and device that the array has, or copy=True or None"
            raise ShapeError("asarray", expected, "copy=False")
        node = obj._node if wanted is None else build.cast(obj._node, wanted)
        return Array(node).to_device(place)
    return Array(build.constant(_numbers_of(obj, wanted, copy), place_of(device)))


def _numbers_of(obj: Any, wanted: DType | None, copy: bool | None) -> Any:
    if copy is False:
        raise ShapeError("asarray", "copy=True or None", "copy=False", hint="Numbers are copied.")
    is_ours = isinstance(obj, np.ndarray | np.generic) or hasattr(obj, "__dlpack__")
    if not is_ours:
        obj = _with_arrays_read(obj)
    try:
        result = np.asarray(obj)
    except ValueError as error:
        raise ShapeError("asarray", "an array", str(error)) from None
    if wanted is not None:
        return _converted(result, wanted)
    if not is_ours and result.dtype.kind in "iuf":
        wanted = dtypes.named("float32" if result.dtype.kind == "f" else "int32")
        if (result.size and result.dtype.kind == "u") or (
            result.dtype.name == "int64" and result.size
        ):
            low, high = int(result.min()), int(result.max())
            if low < -(1 << 31) or high >= 1 << 32 or (low < 0 and high >= 1 << 31):
                expected = "whole numbers that fit into 32 bits"
                raise OutOfRangeError("asarray", expected, f"{low} to {high}")
            wanted = dtypes.named("uint32") if high >= 1 << 31 else wanted
        return result.astype(wanted)
    if not is_ours and result.dtype == object:
        raise DTypeError("asarray", "numbers", type(obj).__name__)
    return np.array(result, dtypes.checked(result.dtype), order="C")


def _converted(found: Any, wanted: DType) -> Any:
    if found.dtype.kind in "iub" and wanted.kind in "iu" and found.size:
        limits = np.iinfo(wanted)
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            expected = f"numbers from {limits.min:,} to {limits.max:,} for {wanted}"
            raise OutOfRangeError("asarray", expected, f"{low:,} to {high:,}")
    if found.dtype.kind == "c":
        raise dtypes.unsupported("complex64")
    with np.errstate(all="ignore"):
        return np.array(found, wanted, order="C")


def _with_arrays_read(obj: Any) -> Any:
    """Return nested lists with arrays replaced by their numbers."""
    if isinstance(obj, Array):
        return at_once(obj.numpy(), "asarray of arrays in a list")
    if isinstance(obj, list | tuple):
        return [_with_arrays_read(each) for each in obj]
    return obj
