"""Images of every kind as arrays of pixels (H, W, 3) uint8, red green blue.

Files are decoded by Pillow, which nothing else needs. Sizes are checked before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from bascule.base.arguments import described
from bascule.base.arrays import Array, np
from bascule.errors import BasculeError, InputError, SetupError

MAX_PIXELS = 1 << 26  # 67 megapixels: 200 MB of them
_KINDS = "a path, the bytes of a file, a PIL image or an array (H, W, 3) uint8"
_NEED = "Install Pillow: pip install 'bascule[images]', in a page loadPackage('pillow')."


def listed_images(where: str, images: object) -> list[Any]:
    """Return one image, or an ordered iterable of them, as a list; InputError."""
    if _is_one(images):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, dict | set):
        raise InputError(where, f"{_KINDS}, or a list of those", described(images))
    return list(images)


def _is_one(value: Any) -> bool:
    if isinstance(value, str | PathLike | bytes | bytearray | memoryview) or _is_pillow(value):
        return True
    return getattr(value, "ndim", 4) < 4


def _is_pillow(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "getexif")


def pixels_of(where: str, image: Any) -> Array:
    """Decode one image -> (H, W, 3) uint8.

    Rotated by its EXIF; of an animation the first frame; transparency is dropped, and 16 bits per
    channel become 8. InputError for anything that is not an image, cannot be decoded, or has more
    than MAX_PIXELS pixels; SetupError if Pillow is needed and not installed.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(where, BytesIO(bytes(image)), f"{len(image):,} bytes")
    if isinstance(image, str | PathLike):
        return _from_path(where, fspath(image))
    if _is_pillow(image):
        return _rgb(where, image)
    if hasattr(image, "ndim") and hasattr(image, "dtype"):
        return _from_array(where, image)
    raise InputError(where, _KINDS, described(image))


def _from_path(where: str, path: Any) -> Array:
    if "://" in str(path)[:12]:
        hint = "Fetch it first, and pass the bytes."
        raise InputError(where, "a local file", str(path)[:80], hint=hint)
    try:
        with Path(path).open("rb") as file:
            return _decoded(where, file, repr(str(path))[:80])
    except (OSError, ValueError) as error:
        raise InputError(where, "a file that can be read", f"{path!r:.80}: {error}") from None


def _decoded(where: str, file: Any, what: str) -> Array:
    pillow = _pillow()
    try:
        with pillow.open(file) as image:
            return _rgb(where, image)
    except (BasculeError, MemoryError):
        raise
    except pillow.DecompressionBombError as error:
        raise _too_large(where, str(error)) from None
    except Exception as error:  # decoders raise whatever their bytes lead them to
        problem = f"{what} ({type(error).__name__}: {str(error)[:120]})"
        raise InputError(where, "an image that can be decoded", problem) from error


def _rgb(where: str, image: Any) -> Array:
    """Decode a PIL image; its size is known before its pixels are."""
    width, height = image.size
    _check_size(where, height, width)
    image = import_module("PIL.ImageOps").exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(where, np.asarray(image), image.mode)
    return np.asarray(image.convert("RGB"))


def _from_numbers(where: str, numbers: Array, mode: str) -> Array:
    """Make grey pixels of 16-bit numbers (H, W), in any type that a decoder uses."""
    low, high = numbers.min(), numbers.max()
    if mode == "F" or low < 0 or high > 0xFFFF:
        raise InputError(where, "channels of 8 or 16 bits", f"{low} to {high} (mode {mode})")
    grey = (numbers.astype(np.uint32) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _from_array(where: str, value: Any) -> Array:
    array: Array = np.asarray(value)
    expected = "an array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W) of uint8"
    grey = array.ndim == 2
    fits = grey or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not fits or array.dtype != np.uint8:
        hint = "Numbers from 0 to 1 become pixels by (255 * x).round().astype('uint8')."
        hint = hint if array.dtype.kind == "f" else ""
        raise InputError(where, expected, f"{array.shape} of {array.dtype}", hint=hint)
    _check_size(where, *array.shape[:2])
    array = array[:, :, None] if grey else array
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _check_size(where: str, height: int, width: int) -> None:
    if min(height, width) < 1:
        raise InputError(where, "an image of one pixel or more", f"{width:,} x {height:,}")
    if height * width > MAX_PIXELS:
        raise _too_large(where, f"{width:,} x {height:,} pixels")


def _too_large(where: str, size: str) -> InputError:
    hint = "Make it smaller first; models see a few hundred pixels a side."
    return InputError(where, f"an image of at most {MAX_PIXELS:,} pixels", size, hint=hint)


def pillow_or_none() -> Any | None:
    """Return Pillow's image module, if it is installed."""
    try:
        return import_module("PIL.Image")
    except ImportError:
        return None


def _pillow() -> Any:
    result = pillow_or_none()
    if result is None:
        raise SetupError("Decoding an image needs Pillow, which is not installed.", hint=_NEED)
    return result
