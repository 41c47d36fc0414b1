"""Text to text, pictures, pictures with texts, voice activity in a page: as natively."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from e2e.conftest import Site
from e2e.engines import Engine, Page
from tests.goldens.image_text import LABELS, build_clip
from tests.goldens.image_text import TEXTS as SENTENCES
from tests.goldens.siglip import LABELS as FITTING
from tests.goldens.siglip import TEMPLATE, build_siglip
from tests.goldens.siglip import TEXTS as PADDED
from tests.goldens.t5 import N_GREEDY, TEXTS
from tests.goldens.t5 import build as build_t5
from tests.goldens.vision import build_dinov2, build_vit, pictures
from tests.goldens.voice import SOUNDS

GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"
SCRIPT = """
import io
import json

import bascule
import numpy as np
from pyodide.http import pyfetch

async def heard(tier, base):
    sound = np.load(io.BytesIO(await (await pyfetch(f"{base}/sound.npy")).bytes()))
    async with await bascule.load("silero-vad", tier=tier) as model:
        return json.dumps((await model.probabilities(sound)).tolist())

async def scored(tier, base, sentences, labels, template):
    picture = np.load(io.BytesIO(await (await pyfetch(f"{base}/picture.npy")).bytes()))
    async with await bascule.load(f"{base}/siglip", tier=tier) as model:
        ids = [model.tokenizer.encode(text) for text in sentences]
        found = [await model.embed_text(sentences), await model.embed_image(picture)]
        (best,) = await model.classify(picture, labels, template=template)
    shares = [best.probabilities[label] for label in labels]
    return json.dumps({"ids": ids, "pair": [rows.tolist() for rows in found], "shares": shares})

async def answers(tier, base, texts, most, sentences, labels):
    picture = np.load(io.BytesIO(await (await pyfetch(f"{base}/picture.npy")).bytes()))
    async with await bascule.open_device(tier) as device:
        async with await device.load(f"{base}/t5") as model:
            written = [each.ids for each in await model.generate(texts, max_new_tokens=most)]
        async with await device.load(f"{base}/vit") as model:
            logits = [await model.logits(picture)]
        async with await device.load(f"{base}/dinov2") as model:
            logits.append(await model.logits(picture))
        async with await device.load(f"{base}/clip") as model:
            found = [await model.embed_text(sentences), await model.embed_image(picture)]
            (best,) = await model.classify(picture, labels)
    pair = [rows.tolist() for rows in found]
    shares = [best.probabilities[label] for label in labels]
    logits = [rows.tolist() for rows in logits]
    return json.dumps({"ids": written, "logits": logits, "pair": pair, "shares": shares})
"""


def test_text_to_text_and_pictures(webgpu_engine: Engine, site: Site, shared_lab: Page) -> None:
    base = site.extra / f"families-{webgpu_engine.name}"
    build_t5("t5", base / "t5")
    build_vit(base / "vit")
    build_dinov2(base / "dinov2")
    build_clip(base / "clip")
    np.save(base / "picture.npy", pictures()[0])
    written, seen = np.load(GOLDENS / "t5.npz"), np.load(GOLDENS / "vision.npz")
    pair = np.load(GOLDENS / "image_text.npz")
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    for tier in ("webgpu", "wasm"):
        asked = (tier, f"{site.url}/extra/{base.name}", TEXTS[:2], N_GREEDY, SENTENCES, LABELS)
        result = json.loads(shared_lab.run("(code) => lab.run(code)", f"await answers{asked!r}"))
        expected = [written[f"t5.{at}.greedy"].tolist() for at in range(2)]
        assert result["ids"] == expected, tier
        for logits, name in zip(result["logits"], ("vit_logits", "dinov2_logits_42"), strict=True):
            expected = seen[name][:1]
            assert np.abs(np.array(logits) - expected).max() < 1e-5 * np.abs(expected).max(), tier
        for rows, name in zip(result["pair"], ("clip_texts", "clip_images"), strict=True):
            assert (np.array(rows) * pair[name][: len(rows)]).sum(1).min() > 0.99999, (tier, name)
        assert np.allclose(result["shares"], pair["clip_shares"][0], atol=2e-5), tier


def test_siglip_scores_each_label_by_itself(engine: Engine, site: Site, shared_lab: Page) -> None:
    base = site.extra / f"siglip-{engine.name}"
    build_siglip(base / "siglip")
    np.save(base / "picture.npy", pictures()[0])
    golden = np.load(GOLDENS / "siglip.npz")
    ids = json.loads((GOLDENS / "siglip.json").read_text())["ids"]
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    for tier in ("webgpu", "wasm") if engine.webgpu else ("wasm", "cpu"):
        asked = (tier, f"{site.url}/extra/{base.name}", PADDED, FITTING, TEMPLATE)
        result = json.loads(shared_lab.run("(code) => lab.run(code)", f"await scored{asked!r}"))
        assert result["ids"] == ids, tier
        for rows, name in zip(result["pair"], ("texts", "images"), strict=True):
            assert (np.array(rows) * golden[name][: len(rows)]).sum(1).min() > 0.99999, (tier, name)
        assert np.allclose(result["shares"], golden["shares"][0], atol=2e-5), tier


def test_voice_activity(engine: Engine, site: Site, shared_lab: Page) -> None:
    base = site.extra / f"voice-{engine.name}"
    base.mkdir(exist_ok=True)
    np.save(base / "sound.npy", SOUNDS["measure"]())
    expected = np.load(GOLDENS / "voice.npz")["measure"]
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    for tier in ("webgpu", "wasm") if engine.webgpu else ("wasm", "cpu"):
        asked = (tier, f"{site.url}/extra/{base.name}")
        result = json.loads(shared_lab.run("(code) => lab.run(code)", f"await heard{asked!r}"))
        assert np.abs(np.array(result) - expected).max() < 2e-5, tier
