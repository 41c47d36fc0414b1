"""What each browser makes of a picture's file: the pixels that Pillow reads, or an error."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bascule.vision.decoding import pixels_of
from e2e.conftest import Site
from e2e.engines import Engine, Page

DECODE = """async (encoded) => {
  const { decodePicture } = await import("/picture-files.js");
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  try {
    const { width, height, data } = await decodePicture(new File([bytes], "given"));
    return { width, height, data: [...data] };
  } catch (error) {
    return { category: error.category, what: error.message };
  }
}"""


def smooth() -> np.ndarray:
    """Colours that change slowly, so that a JPEG keeps them; no two corners are alike."""
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([4 * x, 5 * y, 255 - 2 * (x + y)], -1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def good() -> dict[str, bytes]:
    """Files by name."""
    picture = Image.fromarray(smooth())
    results = {"plain.png": saved(picture, "PNG"), "plain.jpg": saved(picture, "JPEG", quality=95)}
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        results[f"turned{turn}.jpg"] = saved(picture, "JPEG", quality=95, exif=exif)
    results["grey.png"] = saved(picture.convert("L"), "PNG")
    deep = np.asarray(picture)[:, :, 0].astype(np.uint16) * 257
    results["deep.png"] = saved(Image.fromarray(deep), "PNG")
    results["palette.png"] = saved(picture.quantize(16), "PNG")
    frames = [picture.quantize(64), Image.new("P", picture.size, 3)]
    results["moving.gif"] = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    results["moving.webp"] = saved(
        picture, "WEBP", save_all=True, append_images=[frames[1].convert("RGB")], lossless=True
    )
    results["ink.jpg"] = saved(picture.convert("CMYK"), "JPEG", quality=95)
    return results


@pytest.fixture
def blank(engine: Engine, site: Site) -> Iterator[Page]:
    """A page of the site's that does nothing."""
    (site.extra / "blank.html").write_text("<!doctype html><title>Blank</title>")
    page = engine.new_page()
    page.open(f"{site.url}/extra/blank.html")
    yield page
    page.close()


def decoded(page: Page, data: bytes) -> Any:
    return page.run(DECODE, base64.b64encode(data).decode())


def test_browsers_see_what_pillow_sees(blank: Page) -> None:
    for name, data in good().items():
        expected = pixels_of(name, data)
        result = decoded(blank, data)
        assert "what" not in result, (name, result)
        seen = np.array(result["data"], np.uint8).reshape(*expected.shape[:2], 4)
        np.testing.assert_array_equal(seen[:, :, :3], expected, err_msg=name)


def test_pictures_that_are_cut_off_damaged_or_huge_are_errors(blank: Page) -> None:
    """Cut off they are errors, or as whole as Pillow has them."""
    refused = 0
    for name, data in good().items():
        for nbytes in [int(part * len(data)) for part in (0.3, 0.6, 0.9)] + [len(data) - 1]:
            result = decoded(blank, data[:nbytes])
            if result.get("category") == "input":
                refused += 1
                continue
            expected = pixels_of(name, data[:nbytes])
            seen = np.array(result["data"], np.uint8).reshape(*expected.shape[:2], 4)
            np.testing.assert_array_equal(seen[:, :, :3], expected, err_msg=f"{name}, {nbytes}")
    assert refused >= 3 * len(good()) - 2
    claim = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + claim + struct.pack(">I", zlib.crc32(claim))
    for data, said in (
        (b"", "is empty"),
        (b"no picture at all", "cannot read"),
        (b"\x89PNG\r\n\x1a\n" + checked, "20,000 x 20,000 pixels"),
        (good()["plain.png"][:50], "is truncated"),
    ):
        result = decoded(blank, data)
        assert result["category"] == "input"
        assert said in result["what"]
