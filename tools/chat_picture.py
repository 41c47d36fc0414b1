"""`python tools/chat_picture.py`: ask the real model in the page, and take docs/chat.png."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo import WEBGPU_FLAGS
from playwright.sync_api import Page, sync_playwright

from bascule.folders import models_folder
from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "chat.png"
QUESTIONS = ("What is a bascule bridge?", "Name one in London.")
# A software adapter needs minutes.
TIMEOUT_MS = 600_000


def main() -> None:
    app = create_app(models=models_folder(), pyodide=pyodide_folder())
    with running(app) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(WEBGPU_FLAGS)
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{url}/chat.html?tune=off")
        rest(page)
        page.check("#greedy", force=True)
        page.fill("[name=max_new_tokens]", "80", force=True)
        for question in QUESTIONS:
            page.fill("#prompt", question)
            page.press("#prompt", "Enter")
            rest(page)
            print(page.inner_text("#figures").replace("\n", " "))
        print(page.inner_text("#messages"))
        page.screenshot(path=PICTURE)
        browser.close()
    print(f"Picture: {PICTURE}")


def rest(page: Page) -> None:
    """Until the page is ready again."""
    settled = "['ready', 'error'].includes(document.querySelector('#status').dataset.state)"
    page.wait_for_function(settled)
    if page.get_attribute("#status", "data-state") == "error":
        raise SystemExit(f"The page failed: {page.inner_text('#error')}")


if __name__ == "__main__":
    main()
