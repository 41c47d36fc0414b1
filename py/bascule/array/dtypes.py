"""The dtypes of arrays, and their promotion: numpy's rules without 64-bit and complex types."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from bascule.array.errors import DTypeError, OutOfRangeError
from bascule.base.arrays import np

if TYPE_CHECKING:
    DType = np.dtype[Any]
else:
    DType = Any

Kind = Literal["b", "i", "u", "f"]

NAMES = (
    "bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32",
)  # fmt: skip
NEAREST = {
    "int64": "int32",
    "uint64": "uint32",
    "float64": "float32",
    "longdouble": "float32",
    "complex64": "two arrays of float32",
    "complex128": "two arrays of float32",
}


def named(name: str) -> DType:
    """Return the numpy dtype of that name; DTypeError, which names the closest, if unsupported."""
    if name in NAMES:
        return np.dtype(name)
    raise unsupported(name)


def unsupported(name: str) -> DTypeError:
    """Return the error for a dtype that GPUs lack."""
    nearest = NEAREST.get(name)
    hint = f"The nearest is {nearest}." if nearest else f"There are {', '.join(NAMES)}."
    return DTypeError("dtype", "one that WebGPU has", name, hint=hint)


def checked(dtype: Any) -> DType:
    """Return our dtype of a dtype, its name or a Python type; DTypeError for any other."""
    if dtype is bool:
        return named("bool")
    if dtype is int:
        return named("int32")
    if dtype is float:
        return named("float32")
    if dtype is complex:
        raise unsupported("complex64")
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise DTypeError("dtype", f"one of {', '.join(NAMES)}", repr(dtype)) from None
    return named(result.name)


def kind_of(dtype: DType) -> Kind:
    """Return b bool, i signed, u unsigned, f float."""
    return dtype.kind  # pyright: ignore[reportReturnType]


@cache
def promoted(first: DType, second: DType) -> DType:
    """Return the dtype that both fit into. Floats win over integers and stay within 32 bits.

    DTypeError for uint32 with a signed type, for which numpy takes int64.
    """
    result = np.promote_types(first, second)
    if result.name in NAMES:
        return result
    if result.kind == "f":
        return named("float32")
    raise DTypeError(
        "promotion",
        "dtypes that fit into one of 32 bits",
        f"{first} and {second}",
        hint="Convert one of them with xp.astype.",
    )


def for_scalar(value: object, dtype: DType, where: str) -> DType:
    """Return the dtype of an array of `dtype` combined with a Python number.

    DTypeError if the kinds do not combine, OutOfRangeError for a number out of range.
    """
    if isinstance(value, bool | np.bool_):
        return dtype
    if isinstance(value, int | np.integer):
        if dtype.kind == "b":
            return named("int32")
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if not limits.min <= value <= limits.max:
                expected = f"a number from {limits.min:,} to {limits.max:,} beside {dtype}"
                raise OutOfRangeError(where, expected, f"{value}")
        return dtype
    if isinstance(value, float | np.floating):
        return dtype if dtype.kind == "f" else named("float32")
    if isinstance(value, complex | np.complexfloating):
        raise unsupported("complex64")
    raise DTypeError(where, "an array or a number", type(value).__name__)


def result_type(*given: Any) -> DType:
    """Return the dtype that arrays, dtypes and numbers combine to."""
    dtypes = [_dtype_of(each) for each in given if not _is_number(each)]
    numbers = [each for each in given if _is_number(each)]
    if not dtypes:
        if not numbers:
            raise DTypeError("result_type", "at least one array or dtype", "nothing")
        dtypes = [of_number(numbers[0])]
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = promoted(result, dtype)
    for number in numbers:
        result = for_scalar(number, result, "result_type")
    return result


def of_number(value: object) -> DType:
    """Return the dtype of a Python number alone."""
    if isinstance(value, bool):
        return named("bool")
    return named("int32") if isinstance(value, int) else named("float32")


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float | complex) and not hasattr(value, "dtype")


def _dtype_of(value: Any) -> DType:
    result = getattr(value, "dtype", None)
    return checked(result if isinstance(result, np.dtype) else value)


_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "",
    "numeric": "iuf",
}


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a name of the standard, a dtype, or a tuple of either."""
    result = checked(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(result, each) for each in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return result.kind in _KINDS[kind]
    if isinstance(kind, str):
        raise DTypeError("isdtype", f"one of {', '.join(_KINDS)}", repr(kind))
    return result == checked(kind)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether every value of the first fits the second by the rules of promotion."""
    return bool(np.can_cast(_dtype_of(from_), checked(to)))
