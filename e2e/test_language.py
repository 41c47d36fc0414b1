"""A language model in the page's own WebGPU, held to the goldens that native tiers are held to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bascule.base.folders import models_folder
from e2e.conftest import Site, booted, settled
from e2e.engines import Engine, Page
from tests.goldens import cosines, llama

MODEL = "SmolLM2-135M-Instruct"
FILE = models_folder() / MODEL / "model.gguf"
GENERATE = "async ({ ids, options }) => bascule.generate(ids, options)"
GREEDY = {"greedy": True, "max_new_tokens": 32}
# Of the large model fewer: tests/tasks/test_smollm2.py computes all of them natively.
N_LOGITS = 96
# Logits stay in the page: rows are taken out of it in slices.
LOGITS = """async (ids) => {
  const { data, rows, columns } = await bascule.logits(ids);
  globalThis.found = { data, columns };
  return [rows, columns];
}"""
ROWS = """({ start, stop }) => {
  const { data, columns } = globalThis.found;
  const bytes = new Uint8Array(data.buffer, 4 * start * columns, 4 * (stop - start) * columns);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) {
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  }
  return btoa(text);
}"""
SLICE = 8


# Loads a model unless the page holds it already.
LOAD = """async (asked) => {
  const wanted = JSON.stringify(asked);
  if (globalThis.held === wanted) return;
  globalThis.held = null;
  await bascule.load(asked.model, asked.tier);
  globalThis.held = wanted;
}"""


def open_model(
    site: Site, shared: Callable[[str], Page], name: str = MODEL, tier: str = "webgpu"
) -> Page:
    """The chat page of a file's tests with a model, which stays if the next test asks for it."""
    page = shared(f"{site.url}/chat.html?model=/goldens/tiny-llama/tiny-k.gguf&tier=wasm")
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    page.run(LOAD, {"model": name, "tier": tier})
    return page


def logits(page: Page, ids: list[int]) -> np.ndarray:
    rows, columns = page.run(LOGITS, ids)
    slices = [
        base64.b64decode(page.run(ROWS, {"start": at, "stop": min(at + SLICE, rows)}))
        for at in range(0, rows, SLICE)
    ]
    return np.frombuffer(b"".join(slices), np.float32).reshape(rows, columns)


def test_smollm2_says_what_the_reference_says(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    page = open_model(site, shared)
    stats = page.run("() => bascule.stats()")
    assert stats["weights_nbytes"] <= 1.05 * FILE.stat().st_size

    # One that ends by itself: natively all are answered, and tiny models stop at the limit below.
    chat = llama.prompts()["short"]
    result = page.run(GENERATE, {"ids": chat.prompt_ids, "options": GREEDY})
    assert chat.parts_at(result["ids"]) is None, result["text"]
    assert len(result["ids"]) == chat.end
    output = {k: round(v, 2) for k, v in result["stats"].items() if "per_" in k}
    print(f"{webgpu_engine.name}: {output}")


def test_smollm2_logits_and_perplexity(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    page = open_model(site, shared)
    text = llama.long_text()
    text = replace(text, ids=text.ids[:N_LOGITS], hidden=text.hidden[:N_LOGITS])
    expected = text.logits(llama.token_embedding(FILE))
    result = logits(page, text.ids)
    assert np.isfinite(result).all()
    minimum = cosines(result, expected).min()
    assert minimum >= 0.9999

    ours, theirs = mean_loss(result, text.ids), mean_loss(expected, text.ids)
    print(
        f"{webgpu_engine.name}: cosine >= {minimum:.6f}; perplexity of {len(text.ids)} tokens "
        f"{np.exp(ours):.4f}, float64 {np.exp(theirs):.4f}"
    )
    assert abs(np.exp(ours - theirs) - 1) < 0.005


def mean_loss(logits: np.ndarray, ids: list[int]) -> float:
    """Mean negative log-likelihood in nats of each token but the first, given all before it."""
    rows = logits[:-1].astype(np.float64)
    top = rows.max(axis=1)
    totals = np.log(np.exp(rows - top[:, None]).sum(axis=1)) + top
    return float((totals - rows[np.arange(len(rows)), ids[1:]]).mean())


def test_steps_in_flight_hide_the_readback(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    """A tiny model, so that reading is what takes long: the rates are printed side by side."""
    page = open_model(site, shared, "/goldens/tiny-llama/tiny-mixed.gguf")
    chat = llama.tiny("tiny-mixed").chats[0]
    rates: dict[int, float] = {}
    for steps in (1, 8):
        options = {**GREEDY, "steps_in_flight": steps}
        result = page.run(GENERATE, {"ids": chat.prompt_ids, "options": options})
        assert chat.parts_at(result["ids"]) is None
        rates[steps] = result["stats"]["decode_tokens_per_s"]
        calls = result["stats"]["crossings_per_token"]
        print(f"{webgpu_engine.name}, {steps} in flight: {rates[steps]:.0f} tokens/s, {calls:.2f}")
    assert calls < 1


# A folder's weights become blocks in the page, where JavaScript writes them to the GPU by itself.
BLOCKS = """
import bascule, json

async def load(url):
    opened = await bascule.open_device("webgpu")
    async with await opened.load(url, quantize="q8_0", cache_dtype="f32") as model:
        report = model.quantization.as_json()
        logits = await model.logits({ids})
    opened.close()
    return json.dumps([report, logits.tolist()])
"""


def test_a_folder_in_safetensors_says_what_transformers_says(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    golden = llama.tiny_folder()
    page = open_model(site, shared, "/goldens/tiny-llama/folder")
    for chat in golden.chats:
        result = page.run(
            "async ({ messages, options }) => bascule.chat(messages, options)",
            {"messages": chat.messages, "options": GREEDY},
        )
        assert result["prompt_ids"] == chat.prompt_ids
        assert chat.parts_at(result["ids"]) is None
        assert len(result["ids"]) == (32 if chat.end is None else chat.end)
    assert cosines(logits(page, golden.ids), golden.logits).min() > 0.9999

    page = shared(f"{site.url}/lab/")
    booted(page)
    page.run("(code) => lab.run(code)", BLOCKS.replace("{ids}", str(golden.ids)))
    url = f"{site.url}/goldens/tiny-llama/folder"
    report, rows = json.loads(page.run("(code) => lab.run(code)", f"await load({url!r})"))
    assert {t["dtype"] for t in report["tensors"]} == {"q8_0", "f32"}
    minimum = cosines(np.array(rows, np.float32), golden.logits).min()
    print(f"{webgpu_engine.name}: {report['nbytes']:,} bytes, cosine at least {minimum:.5f}")
    assert minimum > 0.995
