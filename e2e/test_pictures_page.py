"""The page of pictures, as somebody uses it: files in, found by words, classified, what fails."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bascule
from e2e.axe import defects
from e2e.conftest import Site, settled
from e2e.engines import Engine, wait_for
from tests.goldens.image_text import LABELS, build_clip
from tests.goldens.vision import build_vit

GIVE = """async ([base, names]) => {
  const data = new DataTransfer();
  for (const name of names) {
    const blob = await (await fetch(`${base}/${name}`)).blob();
    data.items.add(new File([blob], name, { type: blob.type }));
  }
  const input = document.querySelector("#files");
  input.files = data.files;
  input.dispatchEvent(new Event("change"));
}"""
READY = "document.querySelector('#status').textContent === 'Ready.' && {}"
COUNT = "document.querySelector('#count').textContent"
SHOWN = """() => [...document.querySelectorAll("#pictures li")].map((item) => [
  item.querySelector(".name").textContent, item.querySelector(".quiet").textContent])"""
SEARCH = """(text) => {
  document.querySelector("#query").value = text;
  document.querySelector("#search").click();
}"""
CLASSIFY = """(labels) => {
  document.querySelector("#labels").value = labels;
  document.querySelector("#pictures li .classify").click();
}"""
LIKE = """() => [...document.querySelectorAll("#pictures li:not(.bad) .plain")].at(-2).click()"""
BAD = ("empty.png", "garbage.png", "huge.png")
SIDEWAYS = "() => document.documentElement.scrollWidth <= innerWidth"


def make_pictures(folder: Path) -> list[str]:
    """Good ones in every form, and bad ones."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(11)
    for at in range(3):
        pixels = rng.integers(0, 256, (40 + at, 52, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"plain{at}.png")
    turned = Image.new("RGB", (60, 30), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    Image.new("CMYK", (40, 40), (10, 200, 30, 0)).save(folder / "cmyk.jpg")
    frames = [Image.new("P", (30, 30), at) for at in range(3)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    whole = (folder / "plain0.png").read_bytes()
    (folder / "garbage.png").write_bytes(whole[:8] + bytes(100))
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    huge = whole[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "huge.png").write_bytes(huge)
    (folder / "empty.png").write_bytes(b"")
    return [path.name for path in sorted(folder.iterdir())]


async def natively(folder: Path, pictures: Path, text: str) -> tuple[list[str], dict[str, float]]:
    """The same by the same model outside a page: names by nearness, and one's probabilities."""
    names = [f"plain{at}.png" for at in range(3)]
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, bascule.ImageTextModel)
        rows = await model.embed_image([pictures / name for name in names])
        scores = (rows @ np.asarray(await model.embed_text([text])).T)[:, 0]
        order = [names[at] for at in np.argsort(-scores)]
        (result,) = await model.classify(pictures / order[0], list(LABELS))
    return order, dict(result.probabilities)


def test_pictures_are_found_and_bad_ones_say_why(webgpu_engine: Engine, site: Site) -> None:
    engine = webgpu_engine
    base = site.extra / f"pictures-{engine.name}"
    names = make_pictures(base)
    folder = site.extra / f"clip-{engine.name}"
    build_clip(folder)
    page = engine.new_page()
    page.open(f"{site.url}/pictures.html?tier=wasm&model=/extra/{folder.name}")
    assert settled(page) == "ready"
    page.run(GIVE, [f"{site.url}/extra/{base.name}", names])
    wait_for(page, READY.format(f"{COUNT}.startsWith('6 pictures ready')"))
    said = dict(page.run(SHOWN))
    assert "garbage.png is truncated" in said["garbage.png"]
    assert "20,000 x 20,000 pixels" in said["huge.png"]
    assert "is empty" in said["empty.png"]
    text = "a photo of a cat"
    page.run(SEARCH, text)
    wait_for(page, READY.format(f"{COUNT}.includes('nearest first')"))
    order, shares = bascule.sync(natively(folder, base, text))
    assert [name for name, _ in page.run(SHOWN) if name.startswith("plain")] == order
    page.run(CLASSIFY, ", ".join(LABELS))
    first = next(name for name, _ in page.run(SHOWN) if name not in BAD)
    wait_for(page, READY.format(f"{COUNT}.startsWith('{first}')"))
    said = dict(page.run(SHOWN))
    assert all(label in said[first] for label in LABELS)
    if first == order[0]:
        best = max(shares, key=lambda label: shares[label])
        assert said[first].startswith(f"{best} {100 * shares[best]:.1f}%")
    page.run(LIKE)
    wait_for(page, READY.format(f"{COUNT}.includes(', like ')"))
    near = [float(said) for _, said in page.run(SHOWN) if said.startswith(("0.", "1.", "-"))]
    assert near[0] == 1
    assert near == sorted(near, reverse=True)
    assert page.run(SIDEWAYS)
    assert defects(page, site.extra) == []
    page.close()


@pytest.mark.one_engine
def test_a_model_with_labels_of_its_own(engine: Engine, site: Site) -> None:
    base, folder = site.extra / "pictures-vit", site.extra / "vit-page"
    make_pictures(base)
    build_vit(folder)
    page = engine.new_page()
    page.open(f"{site.url}/pictures.html?tier=wasm")
    assert settled(page) == "error"
    assert "needs a model" in page.run("() => document.querySelector('#error').innerText")
    assert defects(page, site.extra) == []
    page.open(f"{site.url}/pictures.html?tier=wasm&model=/extra/{folder.name}")
    assert settled(page) == "ready"
    assert not page.run("() => document.querySelector('#words').checkVisibility()")
    page.run(GIVE, [f"{site.url}/extra/{base.name}", ["plain0.png", "plain1.png"]])
    wait_for(page, READY.format(f"{COUNT}.startsWith('2 pictures ready')"))

    async def best() -> Any:
        async with await bascule.load(folder, tier="cpu") as model:
            assert isinstance(model, bascule.ImageModel)
            return await model.classify([base / "plain0.png", base / "plain1.png"])

    said = dict(page.run(SHOWN))
    for name, result in zip(("plain0.png", "plain1.png"), bascule.sync(best()), strict=True):
        assert said[name].startswith(result.label), json.dumps(said)
    page.close()
