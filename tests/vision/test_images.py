"""Images as arrays: decoding of whatever users have, and resizing in Pillow's numbers."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bascule.errors import InputError, ModelFileError, SetupError, UnsupportedModelError
from bascule.vision import decoding, processing
from bascule.vision.decoding import pixels_of
from bascule.vision.processing import read_processing
from bascule.vision.resize import resize
from tests.goldens.vision import CLIP_EDGES, IMAGE, VIT_PROCESSING, clip_processing, pictures

FILTERS = ("box", "bilinear", "bicubic", "lanczos")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claims(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and that holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 99)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", FILTERS)
def test_resize_is_pillow_s(rng: np.random.Generator, kind: Any) -> None:
    sizes = [(37, 61), (1, 9), (9, 1), (101, 203), (203, 101), (17, 700), (300, 31), (24, 24)]
    sizes += [(int(a), int(b)) for a, b in rng.integers(1, 200, (8, 2))]
    for height, width in sizes:
        x = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = [(24, 24), (32, 19), (64, 65), (height, 20), (20, width)]
        for tall, wide in (*wanted, *rng.integers(1, 200, (4, 2)).tolist()):
            result = resize(x, tall, wide, kind)
            image = Image.fromarray(x).resize((wide, tall), Image.Resampling[kind.upper()])
            # The sine of Lanczos may be another one in its last bit.
            off = np.abs(result.astype(int) - np.asarray(image)).max()
            assert off <= (kind == "lanczos"), (height, width, tall, wide)


def test_processing_is_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.load(Path(__file__).parents[1] / "goldens" / "vision.npz")
    for with_pillow in (True, False):
        if not with_pillow:
            monkeypatch.setattr(processing, "pillow_or_none", lambda: None)
        _agrees(VIT_PROCESSING, golden["vit_pixels"])
        for edge in CLIP_EDGES:
            _agrees(clip_processing(edge), golden[f"clip_pixels_{edge}"])


def _agrees(config: dict[str, Any], expected: np.ndarray[Any, Any]) -> None:
    result = read_processing(config, IMAGE, "p.json")
    mean, std = np.array(result.mean), np.array(result.std)
    for picture, golden in zip(pictures(), expected, strict=True):
        seen = (result.apply(picture) * result.factor - mean) / std
        # Of a channel before it is normalized: the same level.
        assert np.abs((seen - golden.transpose(1, 2, 0)) * std).max() < 0.01 / 255


def test_files_arrays_and_pil_images_are_the_same_pixels(tmp_path: Path) -> None:
    picture = pictures()[0]
    image = Image.fromarray(picture)
    path = tmp_path / "a.png"
    image.save(path)
    for given in (
        picture,
        image,
        path,
        str(path),
        path.read_bytes(),
        memoryview(saved(image, "BMP")),
    ):
        assert (pixels_of("x", given) == picture).all(), type(given)


def test_unusual_images_come_out_right() -> None:
    picture = pictures()[0]
    image = Image.fromarray(picture)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    result = pixels_of("x", saved(image, "PNG", exif=turned))
    assert (result == np.rot90(picture, -1)).all()

    grey = picture[:, :, 0]
    for given in (grey, grey[:, :, None], saved(Image.fromarray(grey), "PNG")):
        assert (pixels_of("x", given) == np.repeat(grey[:, :, None], 3, 2)).all()

    deep = grey.astype(np.uint16) * 256 + 17
    result = pixels_of("x", saved(Image.fromarray(deep), "PNG"))
    assert (result == np.repeat(grey[:, :, None], 3, 2)).all()

    clear = np.dstack([picture, np.full(picture.shape[:2], 9, np.uint8)])
    for given in (clear, saved(Image.fromarray(clear), "PNG")):
        assert (pixels_of("x", given) == picture).all()

    plain = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    other = Image.fromarray(np.full((8, 8, 3), 7, np.uint8))
    animated = saved(Image.fromarray(plain), "GIF", save_all=True, append_images=[other])
    assert (pixels_of("x", animated) == plain).all()

    ink = Image.fromarray(plain).convert("CMYK")
    result = pixels_of("x", saved(ink, "TIFF"))
    assert np.abs(result.astype(int) - plain).max() <= 1
    assert np.abs(pixels_of("x", saved(ink, "JPEG", quality=95)).astype(int) - plain).max() < 12


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (saved(Image.fromarray(pictures()[0]), "PNG")[:900], "can be decoded"),
        (saved(Image.fromarray(pictures()[0]), "JPEG")[:700], "can be decoded"),
        (b"", "can be decoded"),
        (b"no image at all", "can be decoded"),
        (claims(20_000, 20_000), "at most 67,108,864 pixels"),
        (claims(9_000, 9_000), "at most 67,108,864 pixels"),
        ("no/such/file.png", "a file that can be read"),
        ("https://example.org/a.png", "a local file"),
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((4, 4, 2), np.uint8), "uint8"),
        (np.zeros((0, 4, 3), np.uint8), "one pixel or more"),
        (7, "a path, the bytes"),
        (Image.new("F", (4, 4)), "8 or 16 bits"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        pixels_of("images[0]", given)


def test_a_large_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(InputError, match="9,000 x 9,000"):
        pixels_of("x", claims(9_000, 9_000))


def test_decoding_without_pillow_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "pillow_or_none", lambda: None)
    with pytest.raises(SetupError, match="Pillow") as caught:
        pixels_of("x", b"\x89PNG")
    assert "bascule[images]" in caught.value.hint
    assert pixels_of("x", pictures()[0]).shape == (37, 61, 3)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"size": {"height": 30, "width": IMAGE}}, ModelFileError),
        ({"size": "large"}, ModelFileError),
        ({"size": {"shortest_edge": True}}, ModelFileError),
        ({"image_std": [0, 1, 1]}, ModelFileError),
        ({"image_mean": [0.5, 0.5]}, ModelFileError),
        ({"rescale_factor": "a"}, ModelFileError),
        ({"do_resize": 3}, ModelFileError),
        ({"resample": 0}, UnsupportedModelError),
        ({"resample": [2]}, UnsupportedModelError),
    ],
)
def test_unsound_processing_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_processing({**VIT_PROCESSING, **change}, IMAGE, "p.json")


def test_a_line_of_pixels_that_would_become_huge_is_refused() -> None:
    config = {"size": {"shortest_edge": 24}, "crop_size": 24, "resample": 3}
    result = read_processing(config, 24, "p.json")
    assert result.apply(np.zeros((1, 3000, 3), np.uint8)).shape == (24, 24, 3)
    with pytest.raises(InputError, match="sides"):
        result.apply(np.zeros((1, 200_000, 3), np.uint8))
