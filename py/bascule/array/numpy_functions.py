"""numpy's functions on our arrays: `np.sum(x)` is `xp.sum(x)`, and stays on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bascule.array as xp
from bascule.array.array import Array, asarray
from bascule.array.elementwise import FUNCTIONS
from bascule.array.errors import DTypeError
from bascule.base.arrays import np

# numpy's names of the standard's elementwise functions.
_UFUNCS: dict[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "absolute": FUNCTIONS["abs"], "fabs": FUNCTIONS["abs"], "rint": FUNCTIONS["round"],
    "power": FUNCTIONS["pow"], "invert": FUNCTIONS["bitwise_invert"],
    "left_shift": FUNCTIONS["bitwise_left_shift"], "right_shift": FUNCTIONS["bitwise_right_shift"],
    "arctan2": FUNCTIONS["atan2"], "conjugate": xp.conj, "matmul": xp.matmul, "vecdot": xp.vecdot,
    **{f"arc{n}": FUNCTIONS[f"a{n}"] for n in ("cos", "sin", "tan", "cosh", "sinh", "tanh")},
}  # fmt: skip


def _flat(function: Callable[..., Array]) -> Callable[..., Array]:
    """Wrap a function of one axis; without an axis, as in numpy, it flattens the array."""

    def along(x: Array, axis: int | None = None, **options: Any) -> Array:
        if axis is None:
            x, axis = xp.reshape(x, (-1,)), 0
        return function(x, axis=axis, **options)

    return along


def _where(condition: Array, *pair: Any) -> Any:
    return xp.where(condition, *pair) if pair else xp.nonzero(condition)


def _transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    return xp.permute_dims(x, tuple(reversed(range(x.ndim))) if axes is None else axes)


def _swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    axes = list(range(x.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return xp.permute_dims(x, axes)


def _dot(a: Any, b: Any) -> Any:
    if getattr(a, "ndim", 0) == 0 or getattr(b, "ndim", 0) == 0:
        return a * b
    if b.ndim > 2:
        raise DTypeError("np.dot", "a second operand of at most 2 axes", f"shape {b.shape}")
    return xp.matmul(a, b)


def _shape(values: Any) -> tuple[int, ...]:
    return (values,) if isinstance(values, int) else tuple(values)


def _norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    if axis is None and ord is not None and x.ndim == 2:
        return xp.linalg.matrix_norm(x, ord=ord, keepdims=keepdims)
    if isinstance(axis, int) or ord is None:
        order = 2 if ord is None else ord
        return xp.linalg.vector_norm(x, axis=axis, ord=order, keepdims=keepdims)
    if axis is None and x.ndim == 1:
        return xp.linalg.vector_norm(x, ord=ord, keepdims=keepdims)
    raise DTypeError("np.linalg.norm", "one axis, or none of a matrix", f"axis={axis}")


def _unique(x: Array) -> Array:
    return xp.unique_values(x)


_REDUCE = "axis out keepdims"
_WIDE = "axis dtype out keepdims"
# numpy's parameters after the first, in its order, and their mapping: `new=old` has another name
# here, `*name` is positional, `out` must be None (also dtype).
_FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sum": (_WIDE, xp.sum), "prod": (_WIDE, xp.prod), "mean": ("axis", xp.mean),
    "max": (_REDUCE, xp.max), "amax": (_REDUCE, xp.max), "min": (_REDUCE, xp.min),
    "amin": (_REDUCE, xp.min), "any": (_REDUCE, xp.any), "all": (_REDUCE, xp.all),
    "argmax": (_REDUCE, xp.argmax), "argmin": (_REDUCE, xp.argmin),
    "count_nonzero": ("axis", xp.count_nonzero),
    "cumsum": ("axis dtype out", _flat(xp.cumulative_sum)),
    "cumprod": ("axis dtype out", _flat(xp.cumulative_prod)), "diff": ("n axis", xp.diff),
    "std": ("axis out out correction=ddof", xp.std),
    "var": ("axis out out correction=ddof", xp.var),
    "sort": ("axis", xp.sort), "argsort": ("axis", xp.argsort), "nonzero": ("", xp.nonzero),
    "searchsorted": ("*v side", xp.searchsorted), "unique": ("", _unique),
    "isin": ("*test_elements", xp.isin), "take": ("*indices axis", xp.take),
    "concatenate": ("axis out", xp.concat), "stack": ("axis out", xp.stack),
    "where": ("*x *y", _where), "clip": ("min=a_min max=a_max out min max", xp.clip),
    "round": ("", FUNCTIONS["round"]), "around": ("", FUNCTIONS["round"]),
    "reshape": ("*shape", lambda x, shape: xp.reshape(x, _shape(shape))),
    "ravel": ("", lambda x: xp.reshape(x, (-1,))), "transpose": ("axes", _transpose),
    "swapaxes": ("axis1 axis2", _swapaxes), "moveaxis": ("*source *destination", xp.moveaxis),
    "expand_dims": ("axis", xp.expand_dims), "squeeze": ("axis", xp.squeeze),
    "broadcast_to": ("*shape", lambda x, shape: xp.broadcast_to(x, _shape(shape))),
    "flip": ("axis", xp.flip), "roll": ("*shift axis", xp.roll),
    "repeat": ("*repeats axis", xp.repeat),
    "tile": ("*reps", lambda x, reps: xp.tile(x, _shape(reps))),
    "tril": ("k", xp.tril), "triu": ("k", xp.triu), "dot": ("*b", _dot),
    "tensordot": ("*b axes", xp.tensordot), "linalg.norm": ("ord axis keepdims", _norm),
    "outer": ("*b", lambda a, b: xp.linalg.outer(xp.reshape(a, (-1,)), xp.reshape(b, (-1,)))),
    "zeros_like": ("dtype", xp.zeros_like), "ones_like": ("dtype", xp.ones_like),
    "full_like": ("*fill_value dtype", xp.full_like), "empty_like": ("dtype", xp.empty_like),
    "linalg.solve": ("*b", xp.linalg.solve), "linalg.inv": ("", xp.linalg.inv),
    "linalg.det": ("", xp.linalg.det), "linalg.cholesky": ("upper", xp.linalg.cholesky),
    "linalg.pinv": ("", xp.linalg.pinv), "linalg.matrix_power": ("*n", xp.linalg.matrix_power),
    "linalg.eigh": ("", xp.linalg.eigh), "linalg.eigvalsh": ("", xp.linalg.eigvalsh),
    "linalg.slogdet": ("", xp.linalg.slogdet), "linalg.qr": ("mode", xp.linalg.qr),
    "linalg.svd": ("full_matrices", xp.linalg.svd),
    "shape": ("", lambda x: x.shape), "ndim": ("", lambda x: x.ndim),
    "size": ("", lambda x: x.size),
}  # fmt: skip
# Functions that return no array read ours.
_READERS = (
    "allclose", "array_equal", "array_equiv", "array2string", "array_repr", "array_str", "save",
    "savetxt",
)  # fmt: skip


def call_function(function: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Implement `Array.__array_function__`. DTypeError for missing functions and options."""
    name = f"{function.__module__}.{function.__name__}".removeprefix("numpy.")
    if name in _READERS:
        read = [np.asarray(each) if isinstance(each, Array) else each for each in args]
        return function(*read, **options)
    if name not in _FUNCTIONS:
        raise _lacking(f"np.{name}", "a function that bascule.array has", "none")
    order, called = _FUNCTIONS[name]
    positional, keywords = [args[0] if args else None], dict[str, Any]()
    for each, value in _bound(f"np.{name}", order.split(), args[1:], options).items():
        if each.startswith("*"):
            positional.append(value)
        else:
            keywords[each.partition("=")[0]] = value
    return called(*[_converted(each, args) for each in positional], **keywords)


def _bound(
    where: str, names: Sequence[str], args: Sequence[Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return arguments by the names of a row of `_FUNCTIONS`, without `out`."""
    if len(args) > len(names):
        raise _lacking(where, f"at most {1 + len(names)} arguments", str(1 + len(args)))
    result = dict(zip(names, args, strict=False))
    by_option = {name.lstrip("*").rpartition("=")[2]: name for name in names} | {"out": "out"}
    for option, value in options.items():
        if option not in by_option:
            known = ", ".join(by_option)
            raise _lacking(where, f"no options but {known}", option)
        result[by_option[option]] = value
    out = result.pop("out", None)
    if out is not None:
        raise _lacking(where, "out=None", type(out).__name__)
    return result


def call_ufunc(ufunc: Any, method: str, operands: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Implement `Array.__array_ufunc__`; numpy arrays beside ours are copied to their device.

    DTypeError for missing functions, and for numpy arrays of 64 bits.
    """
    name = f"np.{ufunc.__name__}"
    if method != "__call__":
        raise _lacking(f"{name}.{method}", "a function that bascule.array has", "none")
    if options:
        raise _lacking(name, "no options", ", ".join(options))
    if ufunc.__name__ not in _UFUNCS:
        raise _lacking(name, "a function that bascule.array has", "none")
    return _UFUNCS[ufunc.__name__](*[_converted(each, operands) for each in operands])


def _converted(value: Any, beside: Sequence[Any]) -> Any:
    """Convert a numpy array to ours, on the device of our first one; numbers stay numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return asarray(value, device=_first(beside).device)
    if isinstance(value, list | tuple) and any(isinstance(each, Array) for each in value):
        return [_converted(each, value) for each in value]
    return value


def _first(values: Sequence[Any]) -> Array:
    for each in values:
        if isinstance(each, Array):
            return each
        if isinstance(each, list | tuple) and any(isinstance(item, Array) for item in each):
            return _first(each)
    raise DTypeError("numpy", "one of our arrays among the operands", "none")


def _lacking(where: str, expected: str, found: str) -> DTypeError:
    hint = "Give numpy the numbers: `await x.numpy()` or np.asarray(x)."
    return DTypeError(where, expected, found, hint=hint)
