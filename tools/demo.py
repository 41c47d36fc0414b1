"""`make demo`: open the pages in a real browser, embed real sentences, chat, show what came out.

Its screenshots go to out/, or to the folder that is given: `make pictures` makes those of docs/.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, ViewportSize, sync_playwright
from rich.console import Console
from rich.table import Table

from bascule.base.folders import models_folder
from bascule.cli.main import DEFAULT_PORT
from bascule.errors import BasculeError
from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running

OUT = Path(__file__).resolve().parent.parent / "out"
DESKTOP: ViewportSize = {"width": 1000, "height": 730}
PHONE: ViewportSize = {"width": 390, "height": 844}
LOW: ViewportSize = {"width": 1000, "height": 720}
EXAMPLE = "mandelbrot"
GALLERY = ("life", "convolution", "nbody", "kmeans", "heat", "pca")
IS_DRAWN = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.drawImage(document.querySelector("#log canvas"), 0, 0);
  return context.getImageData(0, 0, 1, 1).data[3];
}"""
RECORDING = Path(__file__).resolve().parent.parent / "tests/recordings/measure.wav"
HIGH: ViewportSize = {"width": 1000, "height": 900}
QUESTION = "What is a bridge? Answer in one sentence."
# Without a GPU a token may take half a second.
TIMEOUT_MS = 300_000
# SwiftShader is the WebGPU adapter of a machine without a GPU; Chromium hides it by default.
WEBGPU_FLAGS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)
console = Console()


def main(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    app = create_app(models=models_folder(), pyodide=pyodide_folder())
    with running(app) as url, sync_playwright() as playwright:
        console.print(f"Opening {url}/ in headless Chromium with WebGPU ...")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(WEBGPU_FLAGS)
        )
        page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")
        page.goto(f"{url}/")
        show(run_page(page))
        page.screenshot(path=folder / "demo.png")
        page.set_viewport_size(PHONE)
        compare(page)  # on a phone it scrolls to the result
        page.screenshot(path=folder / "demo-phone.png")
        console.print(f"Opening {url}/chat.html and asking: {QUESTION}")
        page.set_viewport_size(LOW)
        page.goto(f"{url}/chat.html")
        console.print(chat(page), highlight=False, markup=False)
        page.evaluate("() => scrollTo(0, 0)")
        page.screenshot(path=folder / "chat.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=folder / "chat-dark.png")
        console.print(f"Opening {url}/transcribe.html with {RECORDING.name}")
        page.emulate_media(color_scheme="light")
        page.goto(f"{url}/transcribe.html")
        console.print(transcribe(page), highlight=False, markup=False)
        page.screenshot(path=folder / "speech.png")
        page.set_viewport_size(HIGH)
        run_example(page, url, EXAMPLE)
        page.wait_for_function(IS_DRAWN)
        page.screenshot(path=folder / "console.png")
        for name in GALLERY:
            picture = run_example(page, url, name)
            picture.screenshot(path=folder / f"example-{name}.png")
        browser.close()
    console.print(f"Screenshots: {', '.join(str(path) for path in sorted(folder.glob('*.png')))}")
    console.print(
        "To see it yourself: `make serve` (it runs until Ctrl+C), then open "
        f"http://localhost:{DEFAULT_PORT}/ in a browser."
    )
    return 0


def run_page(page: Page) -> dict[str, Any]:
    """Wait for the model, tell its stages, press Compare, and read what the page shows."""
    wait(page)
    compare(page)
    return page.evaluate(
        """() => ({
          tier: document.querySelector('#tier').textContent,
          adapter: document.querySelector('#adapter').textContent,
          timings: document.querySelector('#timings').textContent,
          texts: document.querySelector('#sentences').value.trim().split('\\n'),
          rows: [...document.querySelectorAll('#matrix tbody tr')].map(
            (row) => [...row.querySelectorAll('td')].map((cell) => Number(cell.textContent))),
        })"""
    )


def compare(page: Page) -> None:
    page.click("#embed")
    page.wait_for_selector("#matrix td")
    page.wait_for_selector('#status[data-state="ready"]')


def chat(page: Page) -> str:
    """Ask a language model, and read its answer and what it took."""
    page.set_default_timeout(TIMEOUT_MS)
    wait(page)
    page.click("#settings > summary")
    page.check("#greedy")
    page.click("#settings > summary")
    page.fill("#prompt", QUESTION)
    page.press("#prompt", "Enter")
    page.wait_for_selector('#status[data-state="busy"]')
    wait(page)
    said: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('#messages li')].map((each) => each.dataset.text)"
    )
    figures: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('#figures div')].map("
        "(row) => [...row.children].map((each) => each.textContent).join(' '))"
    )
    return "\n".join([*said, ", ".join(figures)])


def transcribe(page: Page) -> str:
    """Hand a recording to the page; what was said, and how long it took."""
    page.set_input_files("#file", RECORDING)
    page.wait_for_selector("#segments li")
    wait(page)
    return f"{page.inner_text('#segments')}\n{page.inner_text('#speed')}"


def run_example(page: Page, url: str, name: str) -> Locator:
    """Open an example's own page, and wait for its picture."""
    console.print(f"Opening {url}/repl.html?example={name}")
    page.goto(f"{url}/repl.html?example={name}")
    page.wait_for_selector("#log canvas, #log img")
    wait(page)
    return page.locator("#log canvas, #log img").last


def wait(page: Page) -> None:
    """Until the page has settled, telling its stages."""
    result = ""
    settled = "() => ['ready', 'error'].includes(document.querySelector('#status').dataset.state)"
    while not page.evaluate(settled):
        now = page.inner_text("#status")
        if now != result:
            console.print(f"  {now}")
            result = now
        page.wait_for_timeout(100)
    if page.get_attribute("#status", "data-state") == "error":
        raise SystemExit(f"The page failed: {page.inner_text('#error')}")


def show(found: dict[str, Any]) -> None:
    rows, texts = found["rows"], found["texts"]
    pairs = [(rows[a][b], a, b) for a in range(len(rows)) for b in range(a + 1, len(rows))]
    pairs.sort(reverse=True)
    table = Table(title=f"Tier {found['tier']} on {found['adapter']}", caption=found["timings"])
    table.add_column("similarity", justify="right")
    table.add_column("sentence")
    table.add_column("and")
    for score, a, b in pairs[:4] + pairs[-2:]:
        table.add_row(f"{score:.2f}", texts[a], texts[b])
    console.print(table)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else OUT))
    except BasculeError as error:
        sys.exit(f"bascule: {error}")
