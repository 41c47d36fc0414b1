"""The page of sentences, as somebody uses it: what is in sight, the keyboard, many sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.axe import DESKTOP, PHONE, defects, emulate
from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, wait_for

pytestmark = pytest.mark.one_engine
IN_SIGHT = """(selector) => {
  const { top, bottom, left, right } = document.querySelector(selector).getBoundingClientRect();
  return top >= 0 && left >= 0 && bottom <= innerHeight && right <= innerWidth;
}"""
COMPARE = """(texts) => {
  document.querySelector("#sentences").value = texts.join("\\n");
  document.querySelector("#embed").click();
}"""
# The ids of what has had the focus, one after another; "" is the body.
WATCH_FOCUS = """() => {
  globalThis.focused = [];
  const note = () => {
    const { id } = document.activeElement;
    if (focused.at(-1) !== id) focused.push(id);
  };
  document.addEventListener("focusin", note);
  const frame = () => { note(); requestAnimationFrame(frame); };
  frame();
}"""
FOCUSED = "() => document.activeElement.id"
READY = "document.querySelector('#status').dataset.state === 'ready'"
# Each value that the bar has had, and how often the page could draw meanwhile.
WATCH = """() => {
  globalThis.bars = [];
  globalThis.frames = 0;
  const bar = document.querySelector("#progress");
  new MutationObserver(() => bars.push(Number(bar.getAttribute("aria-valuenow")))).observe(
    bar, { attributes: true, attributeFilter: ["aria-valuenow"] });
  const frame = () => { frames += 1; requestAnimationFrame(frame); };
  frame();
}"""


@pytest.fixture(scope="module")
def page(engine: Engine, site: Site) -> Iterator[Page]:
    opened = engine.new_page()
    opened.open(f"{site.url}/?tier=wasm&model=/goldens/tiny-bert")
    assert settled(opened) == "ready"
    opened.run(WATCH)
    yield opened
    opened.close()


def many(n: int) -> list[str]:
    return [f"w{4 + i % 40} w{4 + i // 40}" for i in range(n)]


def compare(page: Page, texts: list[str]) -> None:
    page.run(COMPARE, texts)
    assert settled(page) == "ready"


def test_a_few_sentences_beside_their_result(page: Page, site: Site) -> None:
    assert defects(page, site.extra) == []  # nothing compared yet
    emulate(page, size=DESKTOP)
    compare(page, ["w4 w5 w6", "w4 w5", "w7"])
    assert page.run(IN_SIGHT, "#sentences")
    assert page.run(IN_SIGHT, "#matrix")
    page.run("() => { document.querySelector('#details').open = true; }")
    page.run("() => { document.querySelector('#kept').open = true; }")
    wait_for(page, "document.querySelector('#kept li')")
    assert defects(page, site.extra) == []
    page.run("() => { document.querySelector('#details').open = false; }")
    emulate(page, size=PHONE)
    page.run("() => scrollTo(0, 0)")
    assert page.run(IN_SIGHT, "#sentences")
    compare(page, ["w4 w5 w6", "w4 w5", "w7"])
    wait_for(page, f"({IN_SIGHT})('#matrix')")
    # One cell is a stop of Tab; the arrow keys reach the others.
    page.run("() => document.querySelector('#matrix td').focus()")
    page.press("ArrowRight", "ArrowDown", "ArrowDown")
    result = page.run("() => document.querySelector('#pointed').textContent")
    assert "3 “w7” and 2 “w4 w5”" in result
    assert page.run("() => document.querySelectorAll('#matrix td[tabindex=\"0\"]').length") == 1
    compare(page, ["w4"])
    assert "1 sentence, " in page.run("() => document.querySelector('#timings').textContent")


def test_texts_past_the_longest_are_named(page: Page, site: Site) -> None:
    emulate(page, size=DESKTOP)
    long = "w4 " * 100
    compare(page, ["w4", long, "w5 w6", f"{long} w7"])
    result = "Sentences 2, 4 were cut to the first 40 tokens, the most that this model reads."
    assert page.run("() => document.querySelector('#cut').innerText") == result
    assert defects(page, site.extra) == []
    compare(page, [long, "w4"])
    assert "Sentence 1 was cut" in page.run("() => document.querySelector('#cut').innerText")
    compare(page, ["w4", "w5 w6"])
    assert page.run("() => document.querySelector('#cut').hidden")


def test_400_sentences_on_a_canvas(page: Page, site: Site) -> None:
    emulate(page, size=DESKTOP)
    page.run("() => { frames = 0; bars.length = 0; }")
    compare(page, many(400))
    result: dict[str, Any] = page.run(
        """() => ({
          frames, bars, cells: document.querySelectorAll("#found *").length,
          width: document.querySelector("#map canvas").width,
          pairs: document.querySelectorAll("#pairs li").length,
        })"""
    )
    assert (result["width"], result["pairs"]) == (400, 5)
    assert result["cells"] < 100  # no element for each of 160,000 pairs
    assert result["frames"] > 3  # the page drew meanwhile
    assert len(result["bars"]) > 3
    assert result["bars"] == sorted(result["bars"])
    assert defects(page, site.extra) == []
    page.run("() => document.querySelector('#map canvas').focus()")
    page.press("ArrowDown", "PageDown", "End")
    pointed = "() => document.querySelector('#pointed').textContent"
    assert "12 “w15 w4” and 400 “w43 w13”" in page.run(pointed)
    page.run(
        """() => {
          const canvas = document.querySelector("#map canvas");
          const { left, top, width, height } = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent("pointermove", {
            clientX: left + (0.5 * width) / 400, clientY: top + (2.5 * height) / 400 }));
        }"""
    )
    assert "3 “w6 w4” and 1 “w4 w4”" in page.run(pointed)
    page.run(
        """() => {
          const bytes = document.querySelector("#bytes");
          const watch = new MutationObserver(() => {
            if (!bytes.textContent.includes("of 1,000")) return;
            watch.disconnect();
            document.querySelector("#embed").click();
          });
          watch.observe(bytes, { childList: true });
        }"""
    )
    page.run(COMPARE, many(1000))
    assert settled(page) == "ready"
    assert page.run("() => document.querySelector('#status').textContent") == "Cancelled."
    assert page.run("() => document.querySelector('#map canvas').width") == 400
    page.run(COMPARE, many(1001))
    output = page.run("() => document.querySelector('#status').textContent")
    assert "1,001 sentences" in output
    assert "at most 1,000" in output


def tab_to(page: Page, selector: str) -> None:
    for _ in range(12):
        if page.run("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def test_a_load_by_keyboard_alone(engine: Engine, site: Site) -> None:
    """What is pressed goes away, and the focus moves on to what helps next, never to the body."""
    page = engine.new_page()
    try:
        page.open(f"{site.url}/?tier=wasm&model=/faults/held/tiny-bert")
        wait_for(page, "document.querySelector('#status').textContent.includes('weights')")
        tab_to(page, "#cancel")
        assert defects(page, site.extra) == []  # of a load
        page.run(WATCH_FOCUS)
        page.press("Enter")
        assert settled(page) == "error"
        assert page.run("() => document.querySelector('#retry').innerText") == "Load again"
        site.faults.healed = True
        page.press("Enter")
        wait_for(page, READY)
        wait_for(page, "focused.at(-1) === 'embed'")
        page.press("Enter")
        wait_for(page, "document.querySelector('#matrix td')")
        wait_for(page, READY)
        assert page.run("() => focused") == ["cancel", "retry", "cancel", "embed"]
    finally:
        site.faults.healed = False
        page.close()


def test_an_error_by_keyboard_alone(engine: Engine, site: Site) -> None:
    site.faults.wheel_held = True
    page = engine.new_page()
    try:
        page.open(f"{site.url}/?tier=wasm&model=all-MiniLM-L7")
        wait_for(page, "globalThis.bascule")
        tab_to(page, "#cancel")
        page.run(WATCH_FOCUS)
        site.faults.wheel_held = False
        assert settled(page) == "error"
        wait_for(page, "document.querySelector('#others').checkVisibility()")
        assert page.run(FOCUSED) == "error"  # nothing to retry: the words themselves
        assert defects(page, site.extra) == []
        page.press("Tab")
        assert page.run(FOCUSED) == "model-choice"
        page.press("Tab", "Enter")
        wait_for(page, READY)
        wait_for(page, "focused.at(-1) === 'embed'")
        moves = ["cancel", "error", "model-choice", "load-model", "cancel", "embed"]
        assert page.run("() => focused") == moves
        # One that may pass: it can be retried.
        page.run("() => bascule.load('/faults/drop/tiny-bert', 'wasm').catch(() => {})")
        assert settled(page) == "error"
        assert page.run("() => document.querySelector('#retry').checkVisibility()")
        assert defects(page, site.extra) == []
    finally:
        site.faults.wheel_held = False
        page.close()


def test_the_parts_by_themselves(page: Page) -> None:
    """What no click can bring about at will: stages in any order, every reason for a tier."""
    result: dict[str, Any] = page.run(
        """async () => {
          const { LoadProgress } = await import("/loading.js");
          const { whyOf } = await import("/why.js");
          const { modelsOf } = await import("/cache-panel.js");
          const steps = [
            ["prefetch", 40e6, 80e6, "bytes"], ["python", 0, 1, "steps"],
            ["python", 1, 1, "steps"], ["prefetch", 80e6, 80e6, "bytes"],
            ["package", 1, 1, "steps"], ["config", 1, 1, "steps"],
            ["weights", 0, 80e6, "bytes"], ["pipelines", 1, 4, "pipelines"],
            ["weights", 80e6, 80e6, "bytes"], ["ready", 1, 1, "steps"],
          ];
          const load = new LoadProgress(false);
          const values = steps.map(([stage, done, total, unit]) => {
            load.add({ stage, done, total, unit });
            return [load.fraction, load.text, load.stage];
          });
          const why = (tier, wanted, gpu, warning = "", chosen = tier) => {
            const considered = [{ tier: "webgpu", expected_ms: 5, refused: "", ...gpu }];
            return whyOf({ tier, decision: { chosen, warning, considered } }, wanted);
          };
          const file = (location) => {
            const kind = location.startsWith("http") ? "fetched" : "snapshot";
            return { location, kind, stored_nbytes: 1, nbytes: 2, in_use: false };
          };
          return { values, why: [
              why("wasm", "auto", { refused: "the browser has WebGPU and found no adapter" }),
              why("wasm", "auto", { refused: "BASCULE_DISABLE_WEBGPU is set" }),
              why("wasm", "auto", { refused: "it takes 9 MiB, and there is room for 1 MiB" }),
              why("wasm", "auto", {}, "the GPU here is a software adapter"),
              why("cpu", "auto", {}, "", "webgpu"),
              why("cpu", "cpu", {}),
            ],
            models: modelsOf([
              "http://a/m/config.json", "http://a/m/1_Pooling/config.json",
              "http://a/m/model.safetensors",
              "http://a/g/one.gguf", "http://a/g/two.gguf", "http://a/h/model.gguf",
              "bascule-snapshot:0123",
            ].map(file)).map(({ name, from, files }) => [name, from, files.length]),
          };
        }"""
    )
    values = [value for value, _, _ in result["values"]]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] <= 1
    assert result["values"][0][1] == "24%, 40.0 of 80.0 MB"
    assert result["values"][7][2] == "Loading the weights"  # while the shaders compile
    assert result["why"] == [
        "On the CPU, by WebAssembly: this browser offers no GPU.",
        "On the CPU, by WebAssembly: the GPU is switched off by this page's address.",
        "On the CPU, by WebAssembly: the model does not fit the GPU's memory.",
        "On the CPU, by WebAssembly: faster than this machine's GPU, which is only software.",
        "On the CPU, by numpy: a tier that was expected to be faster failed here.",
        "On the CPU, by numpy: as chosen.",
    ]
    assert result["models"] == [
        ["m", "a", 3], ["one.gguf", "a", 1], ["two.gguf", "a", 1], ["h", "a", 1],
        ["Python's start", "", 1],
    ]  # fmt: skip
