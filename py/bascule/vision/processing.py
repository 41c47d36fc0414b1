"""Process pixels for a model: resize, crop, and normalize by its folder's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from bascule.base.arguments import is_number
from bascule.base.arrays import Array, np
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.vision.decoding import MAX_PIXELS, pillow_or_none
from bascule.vision.resize import Filter, resize

_FILTERS: Mapping[int, Filter] = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_LARGEST = 4096


@dataclass(frozen=True, slots=True)
class ImageProcessing:
    """A preprocessor_config.json: sizes in pixels, numbers per channel.

    An image is resized to `size` (height, width), or until its shorter edge is `shortest`; then its
    center of `crop` (height, width) is taken. A channel becomes (x * factor - mean) / std.
    """

    size: tuple[int, int] | None
    shortest: int
    crop: tuple[int, int] | None
    kind: Filter
    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def check(self, image: int, file: str) -> None:
        """ModelFileError unless every processed image has `image` x `image` pixels."""
        result = self.crop or self.size
        if result != (image, image):
            problem = f"it makes images of {result or 'any size'}, and config.json takes {image}"
            raise ModelFileError(file, problem)

    def side(self, file: str) -> int:
        """Return the height and width of every processed image; ModelFileError if they differ."""
        height, width = self.crop or self.size or (0, 0)
        if not height or height != width:
            result = f"{height} x {width} pixels" if height else "any size"
            raise ModelFileError(file, f"it makes images of {result}, not squares of one size")
        return height

    def apply(self, pixels: Array, where: str = "images") -> Array:
        """Resize and crop (H, W, 3) uint8 -> (height, width, 3) uint8."""
        height, width = pixels.shape[:2]
        wanted = self.size
        if self.shortest:
            short, long = sorted((height, width))
            edge = int(self.shortest * long / short)
            if edge * self.shortest > MAX_PIXELS:
                expected = "an image whose sides are not that different"
                raise InputError(where, expected, f"{width:,} x {height:,} pixels")
            wanted = (self.shortest, edge) if height <= width else (edge, self.shortest)
        if wanted is not None and wanted != (height, width):
            pixels = resized(pixels, *wanted, self.kind)
        return pixels if self.crop is None else _cropped(pixels, *self.crop)


def resized(pixels: Array, height: int, width: int, kind: Filter) -> Array:
    """Resize with Pillow if it is installed, else with `resize`: slower, within one level."""
    pillow = pillow_or_none()
    if pillow is None:
        return resize(pixels, height, width, kind)
    image = pillow.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), pillow.Resampling[kind.upper()]))


def _cropped(pixels: Array, height: int, width: int) -> Array:
    """Crop the center, with black around a smaller image."""
    tall, wide = pixels.shape[:2]
    y = np.zeros((height, width, 3), np.uint8)
    # As transformers' center_crop, which rounds the offset of a smaller image up.
    top, left = _place(tall, height), _place(wide, width)
    rows = slice(max(0, -top), max(0, -top) + min(height, tall))
    columns = slice(max(0, -left), max(0, -left) + min(width, wide))
    source = pixels[max(0, top) :, max(0, left) :][:height, :width]
    y[rows, columns] = source
    return y


def _place(size: int, wanted: int) -> int:
    """Return where the crop starts; negative by the padding of a smaller image."""
    return (size - wanted) // 2


def read_processing(
    config: Mapping[str, Any], image: int, file: str, *, any_size: bool = False
) -> ImageProcessing:
    """Check and read a preprocessor_config.json, or an empty one, for `image` x `image` pixels.

    With `any_size` it may make images of another size. ModelFileError if it is unsound,
    UnsupportedModelError for unsupported settings.
    """
    size, shortest = None, 0
    if _flag(config, "do_resize", file):
        size, shortest = _size(config.get("size", image), file, "crop_size" in config)
    crop = None
    if _flag(config, "do_center_crop", file, "crop_size" in config):
        crop, edge = _size(config.get("crop_size", image), file, square=False)
        crop = crop or (edge, edge)
    kind = config.get("resample", 2)
    if not isinstance(kind, int) or kind not in _FILTERS:
        problem = f"its resample is {kind!r:.40}, and this version runs {sorted(_FILTERS)}"
        raise UnsupportedModelError(file, problem)
    factor = config.get("rescale_factor", 1 / 255) if _flag(config, "do_rescale", file) else 1
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(config, "do_normalize", file):
        mean = _channels(config, "image_mean", file)
        std = _channels(config, "image_std", file)
    if not all(std) or not _is_number(factor):
        raise ModelFileError(file, f"image_std {std} or rescale_factor {factor!r:.40} is unsound")
    result = ImageProcessing(size, shortest, crop, _FILTERS[kind], float(factor), mean, std)
    if not any_size:
        result.check(image, file)
    return result


def _flag(config: Mapping[str, Any], key: str, file: str, default: bool = True) -> bool:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ModelFileError(file, f"{key} is {value!r:.40}, expected true or false")
    return value


def _size(value: Any, file: str, square: bool) -> tuple[tuple[int, int] | None, int]:
    """Return a size, or the length of the shorter edge; a bare number with a crop is the latter."""
    match value:
        case int() if square and _is_size(value):
            return None, value
        case int() if _is_size(value):
            return (value, value), 0
        case {"height": height, "width": width} if _is_size(height) and _is_size(width):
            return (height, width), 0
        case {"shortest_edge": edge} if _is_size(edge) and len(value) == 1:
            return None, edge
        case _:
            raise ModelFileError(file, f"a size is {value!r:.60}, expected height and width")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    return is_number(value) and isfinite(value)


def _channels(config: Mapping[str, Any], key: str, file: str) -> tuple[float, float, float]:
    value = config.get(key, (0.5, 0.5, 0.5))
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        raise ModelFileError(file, f"{key} is {value!r:.60}, expected three numbers")
    red, green, blue = map(float, value)
    return red, green, blue
