"""The console page: sources, values, errors as Python's, plots, Tab, history, Stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from e2e.axe import defects
from e2e.conftest import Site
from e2e.engines import Engine, Page, PlaywrightTab, wait_for
from tests.test_examples import PRINTED

STATE = "document.querySelector('#status').dataset.state"
LOG = "() => [...document.querySelectorAll('#log pre')].map((e) => [e.className, e.textContent])"
IMAGES = """async () => {
  const images = [...document.querySelectorAll("#log img")];
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  return images.map(({ naturalWidth, naturalHeight }) => [naturalWidth, naturalHeight]);
}"""
RUN = """(source) => {
  document.querySelector("#clear").click();
  document.querySelector("#source").value = source;
  document.querySelector("#run").click();
}"""
VALUE = "() => document.querySelector('#source').value"


@pytest.fixture(scope="module")
def page(engine: Engine, site: Site) -> Iterator[Page]:
    opened = engine.new_page()
    opened.open(f"{site.url}/repl.html")
    wait_for(opened, f"{STATE} === 'ready'")
    yield opened
    opened.close()


def run(page: Page, source: str) -> list[Any]:
    """What a source prints and shows."""
    page.run(RUN, source)
    wait_for(page, f"{STATE} === 'ready'")
    return page.run(LOG)[1:]


def test_values_printing_and_names_that_stay(page: Page) -> None:
    assert run(page, "x = 6\nx * 7") == [["value", "42\n"]]
    assert run(page, "for i in range(2):\n    print(i, x)\n") == [["out", "0 6\n1 6\n"]]
    assert run(page, "import asyncio\nawait asyncio.sleep(0, 'slept')") == [["value", "'slept'\n"]]
    assert run(page, "_ + '!';") == []


def test_errors_are_python_s_own(page: Page) -> None:
    [[kind, text]] = run(page, "def f(x):\n    return 1 / x\n\nf(0)")
    assert kind == "error"
    lines = text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "line 4" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert not [line for line in lines if "pyodide" in line or "bascule" in line]
    [[kind, text]] = run(page, "print('a'")
    assert kind == "error"
    assert "SyntaxError" in text
    [[kind, text]] = run(page, "await bascule.load('no-such-model-at-all')")
    assert kind == "error"
    assert "ModelNotFoundError" in text
    assert "no-such-model-at-all" in text


def test_the_pca_example_runs_as_it_does_natively(page: Page, site: Site) -> None:
    source = site_text(page, f"{site.url}/examples/pca.py")
    shown = run(page, source)
    assert "error" not in [kind for kind, _ in shown], shown
    assert PRINTED["pca.py"] in "".join(text for kind, text in shown if kind == "out")
    [[width, height]] = page.run(IMAGES)
    assert width > 300
    assert height > 200


@pytest.mark.one_engine
@pytest.mark.parametrize("name", sorted({*PRINTED} - {"pca.py"}))
def test_kernels_arrays_and_pictures(page: Page, site: Site, name: str) -> None:
    shown = run(page, site_text(page, f"{site.url}/examples/{name}"))
    assert "error" not in [kind for kind, _ in shown], shown
    assert PRINTED[name] in "".join(text for kind, text in shown if kind == "out")
    drawn = page.run("() => document.querySelectorAll('#log canvas').length")
    canvases = ("life.py", "mandelbrot.py")
    assert drawn == (name in canvases)
    assert len(page.run(IMAGES)) == (name not in ("kernel.py", *canvases))


@pytest.mark.one_engine
def test_the_page_of_an_example(page: Page, site: Site) -> None:
    """repl.html?example=NAME runs it as soon as Python is ready, whatever is typed meanwhile."""
    page.open(f"{site.url}/repl.html?example=kernel")
    page.run("() => { document.querySelector('#source').value = 'typed'; }")
    wait_for(page, f"{STATE} === 'ready' && document.querySelector('#log').children.length > 1")
    (kind, source), *shown = page.run(LOG)
    assert (kind, source) == ("source", site_text(page, f"{site.url}/examples/kernel.py").strip())
    assert PRINTED["kernel.py"] in "".join(text for kind, text in shown if kind == "out")
    assert page.run(VALUE) == "typed"
    page.open(f"{site.url}/repl.html?example=../secret")
    wait_for(page, f"{STATE} === 'ready'")
    [[kind, said]] = page.run(LOG)
    assert kind == "error"
    assert said.startswith("There is no example ../secret.py. There are kernel.py, ")


# The colours of a canvas's first 30 rows.
DRAWN = """async () => {
  const canvas = document.querySelector("#log canvas");
  await new Promise((done) => setTimeout(done, 100));
  const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  context.drawImage(canvas, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, Math.min(30, canvas.height)).data];
}"""
DRAWS = """
import numpy as np
device = await bascule.open_device({tier!r})
canvas = device.canvas(70, 30)
rng = np.random.default_rng({seed})
words = rng.integers(0, 1 << 32, (30, 70), dtype=np.uint32)
image = rng.random((30, 70, 3), np.float32)
await canvas.draw(await device.buffer(image))
display(canvas)
while not canvas.way:
    await canvas.next_frame()
await canvas.draw(words)
await canvas.next_frame()
canvas.way, int((await canvas.pixels()).astype(int).sum())
"""


# A canvas that is about to show a picture when its device is closed.
CLOSES = """
import asyncio, js
shown = asyncio.ensure_future(canvas.attach(js.OffscreenCanvas.new(70, 30)))
await asyncio.sleep(0)
device.close()
await shown
display(canvas)
"""


def check_canvas(page: Page, tier: str, way: str) -> None:
    """A canvas of the log shows each pixel of what a device draws."""
    rng = np.random.default_rng()
    seed = int(rng.integers(1 << 31))
    shown = run(page, DRAWS.format(tier=tier, seed=seed))
    words = np.random.default_rng(seed).integers(0, 1 << 32, (30, 70), dtype=np.uint32)
    colours = words.view(np.uint8).reshape(30, 70, 4)[:, :, :3]
    assert shown[-1] == ["value", f"{(way, int(colours.astype(int).sum()))}\n"], shown
    for _ in range(2):
        result = np.array(page.run(DRAWN), np.uint8).reshape(30, 70, 4)
        np.testing.assert_array_equal(result[:, :, :3], colours)
        assert (result[:, :, 3] == 255).all()
        # The log is cleared before: this is another canvas, with what was drawn last.
        assert run(page, "display(canvas)\nawait canvas.next_frame()\ndisplay(canvas)") == []
        assert page.run("() => document.querySelectorAll('#log canvas').length") == 1
    assert run(page, CLOSES) == []


def test_a_canvas_shows_what_the_cpu_draws(page: Page) -> None:
    check_canvas(page, "cpu", "pixels")


def test_a_canvas_shows_what_a_gpu_draws(webgpu_engine: Engine, site: Site) -> None:
    page = webgpu_engine.new_page()
    page.open(f"{site.url}/repl.html")
    wait_for(page, f"{STATE} === 'ready'")
    # A canvas of a SwiftShader device takes all devices away from a page of Chromium.
    check_canvas(page, "webgpu", "copy" if webgpu_engine.name.startswith("firefox") else "pixels")
    page.close()


CLICK = """async ([x, y]) => {
  const image = document.querySelector("#log .picture canvas");
  const { left, top, width, height } = image.getBoundingClientRect();
  const at = { clientX: left + x * width, clientY: top + y * height, detail: 1, bubbles: true };
  image.dispatchEvent(new MouseEvent("click", at));
}"""
DROP = """async () => {
  const canvas = new OffscreenCanvas(40, 30);
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(10, 200, 90)";
  context.fillRect(0, 0, 40, 30);
  context.fillRect(5, 5, 10, 10);
  const data = new DataTransfer();
  data.items.add(new File([await canvas.convertToBlob()], "a.png", { type: "image/png" }));
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#log").dispatchEvent(event);
}"""


def test_a_click_zooms_and_a_dropped_picture_is_convolved(
    webgpu_engine: Engine, site: Site
) -> None:
    page = webgpu_engine.new_page()
    page.open(f"{site.url}/repl.html")
    wait_for(page, f"{STATE} === 'ready'")
    shown = run(page, site_text(page, f"{site.url}/examples/mandelbrot.py"))
    assert "error" not in [kind for kind, _ in shown], shown
    before = page.run(DRAWN)
    page.run(CLICK, [0.25, 0.5])
    wait_for(page, f"{STATE} === 'ready'")
    assert page.run(DRAWN) != before
    assert page.run("() => document.querySelectorAll('#log canvas').length") == 1  # in place
    zoomed = "abs(_.span - 0.8) < 1e-9, abs(_.centre[0] + 1.55) < 0.01, await _.likeness() > 0.97"
    assert run(page, zoomed) == [["value", "(True, True, True)\n"]]
    page.run(DROP)
    wait_for(page, "document.querySelector('#log').textContent.includes('40 x 30 pixels')")
    wait_for(page, f"{STATE} === 'ready'")
    shown = run(page, site_text(page, f"{site.url}/examples/convolution.py"))
    assert "40 x 30 pixels, equal to numpy: True" in "".join(text for _, text in shown)
    assert run(page, "opened.shape, opened[0, 0].tolist()") == [
        ["value", "((30, 40, 4), [10, 200, 90, 255])\n"]
    ]
    page.close()


@pytest.mark.one_engine
def test_keys(page: Page) -> None:
    page.run("() => { const s = document.querySelector('#source'); s.value = ''; s.focus(); }")
    page.press(*"def g():", "Enter")
    wait_for(page, "document.querySelector('#source').value.endsWith('    ')")
    page.press(*"return 5", "Enter")
    wait_for(page, r"document.querySelector('#source').value.endsWith('5\n    ')")
    page.press("Control+Enter")
    wait_for(page, f"{STATE} === 'ready' && document.querySelector('#source').value === ''")
    page.press(*"bascule.open_dev", "Tab")
    wait_for(page, "document.querySelector('#source').value.startsWith('bascule.open_device')")
    page.run("() => { document.querySelector('#source').value = ''; }")
    page.press("ArrowUp")
    assert page.run(VALUE) == "def g():\n    return 5"
    page.press("ArrowDown")
    assert page.run(VALUE) == ""
    page.press(*"g()", "Enter")
    wait_for(page, "document.querySelector('#log').textContent.endsWith('5\\n')")
    assert isinstance(page, PlaywrightTab)


BUSY_SECOND = """
import time
end = time.monotonic() + 1
while time.monotonic() < end: pass

'whole'
"""


@pytest.mark.one_engine
def test_stop_ends_what_waits_and_what_computes(page: Page, site: Site) -> None:
    assert run(page, "import asyncio; x = 6") == []
    for source, result in (
        ("await asyncio.sleep(1000)", "Stopped."),
        ("while True:\n    pass", "KeyboardInterrupt"),
    ):
        page.run(RUN, source)
        wait_for(page, f"{STATE} === 'busy'")
        page.run("() => document.querySelector('#stop').click()")
        wait_for(page, f"{STATE} === 'ready'")
        assert result in page.run(LOG)[-1][1]
        # What runs next is not what was to be stopped.
        assert run(page, BUSY_SECOND) == [["value", "'whole'\n"]]
    assert run(page, "x") == [["value", "6\n"]]  # Python is the same
    assert defects(page, site.extra) == []


def site_text(page: Page, url: str) -> str:
    text: str = page.run("async (url) => (await fetch(url)).text()", url)
    return text
