"""Damaged model.bin files and unsound samples in a page: an error each, and no memory for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page
from tests.speech_folders import ctranslate2

SCRIPT = """
import json

import bascule
import numpy as np
import pyodide_js

async def loaded(base, names):
    found = {}
    for name in names:
        try:
            async with await bascule.load(f"{base}/{name}", tier="wasm") as model:
                result = await model.transcribe(np.zeros(8_000, np.float32))
                found[name] = ["answered", result.text]
        except bascule.errors.BasculeError as error:
            found[name] = [type(error).__name__, str(error)]
    return json.dumps(found)

async def refused(place):
    heap = lambda: len(pyodide_js._module.HEAPU8)
    silence = np.zeros(16_000, np.float32)
    bad = np.array(silence)
    bad[12_345] = np.nan
    found = []
    async with await bascule.load(place, tier="wasm") as model:
        await model.transcribe(silence)
        before = heap()
        # 10 hours in two bytes; a 32-bit numpy has no float32 array of that many.
        hours = np.broadcast_to(np.float16(0), (10 * 3600 * 16_000,))
        for sound in (hours, bad):
            try:
                await model.transcribe(sound)
                found.append("")
            except bascule.errors.InputError as error:
                found.append(str(error))
        grown = heap() - before
        after = (await model.transcribe(silence)).duration
    return json.dumps({"said": found, "grown": grown, "after": after})
"""


@pytest.mark.one_engine
def test_damaged_files_and_unsound_samples(engine: Engine, site: Site, shared_lab: Page) -> None:
    base = site.extra / f"bad-speech-{engine.name}"
    good = ctranslate2(base / "good")
    data = (good / "model.bin").read_bytes()
    cases = {
        "half": data[: len(data) // 2],
        "more": data + b"more",
        "version": b"\x09" + data[1:],
        "renamed": data.replace(b"decoder/layer_1/ffn", b"decoder/layer_7/ffn"),
        "header": data[:3],
        "empty": b"",
    }
    for name, changed in cases.items():
        (Path(shutil.copytree(good, base / name)) / "model.bin").write_bytes(changed)
    url = f"{site.url}/extra/{base.name}"
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    asked = (url, [*cases, "good"])
    found = json.loads(shared_lab.run("(code) => lab.run(code)", f"await loaded{asked!r}"))
    assert found.pop("good")[0] == "answered"
    for name, (kind, said) in found.items():
        wanted = "UnsupportedModelError" if name == "version" else "ModelFileError"
        assert kind == wanted, (name, said)
        assert "model.bin" in said or "tensor" in said, (name, said)
    code = f"await refused({url + '/good'!r})"
    result = json.loads(shared_lab.run("(code) => lab.run(code)", code))
    wanted = ("at most 4 hours", "finite numbers, found nan at index 12,345")
    for said, words in zip(result["said"], wanted, strict=True):
        assert words in said
    assert result["grown"] < 8e6  # 10 hours would be 1.2 GB
    assert result["after"] == pytest.approx(1)
