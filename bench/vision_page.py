"""ViT-B/16 and CLIP ViT-B/32 in Chromium beside onnxruntime-web, on one tier, in turn.

    .venv/bin/python bench/vision_page.py [--rounds N] [--tier wasm|webgpu]

Installs its peers first, as bench/embeddings.py does. On WASM each has one thread. Both read the
weights of vision_folders.py and a picture of 224 x 224 pixels: ours as bytes, which it normalizes
in the pass, onnxruntime-web normalized. Results are compared before times count.
Prints the least times and their ratio, and writes out/bench-vision-page-TIER.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.embeddings import install_peers, served  # noqa: E402
from bench.vision_folders import clip_folder, vit_folder  # noqa: E402
from bench.vision_onnx import SIDE, build_clip, build_vit  # noqa: E402
from e2e.engines import chromium, wait_for  # noqa: E402
from tests.goldens.vision import CLIP_MEAN, CLIP_STD  # noqa: E402

BENCH, OUT = ROOT / "bench", ROOT / "out"
HOME = OUT / "bench-vision"
MODELS = {"vit-b-16": (vit_folder, build_vit), "clip-vit-b-32": (clip_folder, build_clip)}
OURS = """
import json, time
import bascule, numpy as np
picture = None
async def opened(url, folder, pixels, tier):
    global model, picture
    model = await bascule.load(f"{url}/vision/{folder}", tier=tier)
    picture = np.array(pixels, np.uint8).reshape(224, 224, 3)
    await once()
    return ""
async def once():
    see = getattr(model, "embed_image", None) or model.logits
    began = time.perf_counter()
    rows = await see(picture)
    return json.dumps({"ms": 1e3 * (time.perf_counter() - began), "y": rows[0].tolist()})
def closed():
    model.close()
    return ""
"""
PEER = """async ([provider, model, pixels]) => {
  const peers = await import("/bench/peers.js");
  globalThis.peer = await peers.ort(provider, model);
  globalThis.pixels = Float32Array.from(pixels);
}"""
PEER_ONCE = """async () => {
  const { runtime, session } = globalThis.peer;
  const began = performance.now();
  const tensor = new runtime.Tensor("float32", globalThis.pixels, [1, 3, 224, 224]);
  const { y } = await session.run({ pixels: tensor });
  const found = Array.from(await y.getData());
  return { ms: performance.now() - began, y: found };
}"""
console = Console(width=110)


def contest(engine: Any, url: str, name: str, tier: str, rounds: int) -> dict[str, float]:
    """Least milliseconds of each, in turn; AssertionError where results differ."""
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    normal = (picture / 255 - CLIP_MEAN) / CLIP_STD
    lab, peer = engine.new_page(), engine.new_page()
    lab.open(f"{url}/lab/?pyodide=/pyodide/")
    wait_for(lab, "globalThis.lab")
    lab.run("(code) => lab.run(code)", OURS)
    asked = (url, name, picture.ravel().tolist(), tier)
    lab.run("(code) => lab.run(code)", f"await opened{asked!r}")
    peer.open(f"{url}/bench/")
    pixels = np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32).ravel()
    peer.run(PEER, [tier, f"/vision/{name}.onnx", pixels.tolist()])
    times: dict[str, list[float]] = {"bascule": [], "onnxruntime-web": []}
    for _ in range(rounds + 1):
        ours = json.loads(lab.run("(code) => lab.run(code)", "await once()"))
        theirs = peer.run(PEER_ONCE)
        a, b = np.array(ours["y"]), np.array(theirs["y"])
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine > 0.99999, f"{name}: the results differ, cosine {cosine}"
        times["bascule"].append(ours["ms"])
        times["onnxruntime-web"].append(theirs["ms"])
    lab.run("(code) => lab.run(code)", "closed()")
    lab.close()
    peer.close()
    return {who: min(each[1:]) for who, each in times.items()}


def main() -> None:
    """Measure both models, print and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tier", choices=("wasm", "webgpu"), default="wasm")
    options = parser.parse_args()
    tier: str = options.tier
    install_peers()
    results: dict[str, dict[str, float]] = {}
    with sync_playwright() as playwright:
        for name, (make, build) in MODELS.items():
            folder = make(HOME)
            if not (HOME / f"{name}.onnx").exists():
                build(folder, HOME / f"{name}.onnx")
        folders = {"peers": BENCH / "node_modules", "bench": BENCH, "vision": HOME}
        folders["lab"] = ROOT / "e2e" / "pages"
        with (
            chromium(playwright, "chromium", webgpu=tier == "webgpu") as engine,
            served(folders) as url,
        ):
            for name in MODELS:
                results[name] = contest(engine, url, name, tier, options.rounds)
                ours, theirs = results[name]["bascule"], results[name]["onnxruntime-web"]
                ratio = f"{ours / theirs:.2f}"
                console.print(
                    f"{name} on {tier}: ours {ours:,.0f} ms, theirs {theirs:,.0f}: {ratio} times"
                )
    (OUT / f"bench-vision-page-{tier}.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
