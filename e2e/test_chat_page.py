"""The chat page, as somebody uses it: what it keeps, repeats and writes out, and how it looks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.axe import PHONE, ZOOMED, defects, emulate
from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, wait_for

pytestmark = pytest.mark.one_engine
MODEL = "/goldens/tiny-llama/tiny-k.gguf"
STATE = "document.querySelector('#status').dataset.state"
SHOWN = """() => [...document.querySelectorAll("#messages li")].map((item) => [
  item.className, item.dataset.text])"""
BUTTON = """(text) => [...document.querySelectorAll("#messages button")]
  .filter((each) => each.textContent === text).at(-1).click()"""
SET = """(tokens) => {
  const { elements } = document.querySelector("#options");
  if (!elements.greedy.checked) elements.greedy.click();
  elements.max_new_tokens.value = tokens;
}"""
VALUE = "() => document.querySelector('#prompt').value"
TEXT = "(id) => document.getElementById(id).textContent"
IN_SIGHT = """(selector) => {
  const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}"""


@pytest.fixture(scope="module")
def page(engine: Engine, site: Site) -> Iterator[Page]:
    opened = engine.new_page()
    yield opened
    opened.close()


def say(page: Page, text: str) -> list[Any]:
    page.run("(text) => { document.querySelector('#prompt').value = text; }", text)
    page.run("() => document.querySelector('#send').click()")
    assert settled(page) == "ready"
    return page.run(SHOWN)


def test_a_message_waits_for_the_model(page: Page, site: Site) -> None:
    site.faults.wheel_held = True
    try:
        page.open(f"{site.url}/chat.html?tier=wasm&model={MODEL}")
        wait_for(page, "globalThis.bascule")
        page.run(SET, 8)
        assert defects(page, site.extra) == []
        page.run("() => document.querySelector('#prompt').focus()")
        page.press(*"Why?", "Enter")
        assert page.run(VALUE) == "Why?"
        assert "as soon as the model is ready" in page.run(TEXT, "queued")
        page.press("Escape")
        assert page.run(TEXT, "queued") == ""
        page.press("Enter")
    finally:
        site.faults.wheel_held = False
    wait_for(page, f"{STATE} === 'ready' && document.querySelector('#messages .actions button')")
    assert page.run(VALUE) == ""
    shown = page.run(SHOWN)
    assert [role for role, _ in shown] == ["user", "assistant"]
    assert shown[0][1] == "Why?"
    assert shown[1][1]


def test_a_conversation_survives_a_reload(page: Page, site: Site) -> None:
    before = say(page, "And then?")
    assert len(before) == 4
    page.run(
        """() => {
          const prompt = document.querySelector("#prompt");
          prompt.value = "half a tho";
          prompt.dispatchEvent(new Event("input"));
        }"""
    )
    page.open(f"{site.url}/chat.html?tier=wasm&model={MODEL}")
    wait_for(page, "document.querySelectorAll('#messages li').length === 4")
    assert page.run(SHOWN) == before
    assert page.run(VALUE) == "half a tho"
    assert settled(page) == "ready"
    page.run(SET, 8)
    assert defects(page, site.extra) == []


def test_repeating_and_changing(page: Page) -> None:
    first = page.run(SHOWN)
    page.run("() => { document.querySelector('#prompt').value = ''; }")
    page.run(BUTTON, "Regenerate")
    assert page.run("() => document.activeElement.id") == "send"
    assert settled(page) == "ready"
    assert page.run(SHOWN) == first  # greedy: the same again
    page.run(BUTTON, "Edit")
    assert page.run(VALUE) == "And then?"
    assert not page.run("() => document.querySelector('#editing').hidden")
    page.run("() => document.querySelector('#keep').click()")
    assert page.run(VALUE) == ""
    page.run(BUTTON, "Edit")
    changed = say(page, "And before?")
    assert changed[:2] == first[:2]
    assert [role for role, _ in changed] == ["user", "assistant"] * 2
    assert changed[2][1] == "And before?"
    # One that cannot be sent leaves the former one as it was.
    page.run(BUTTON, "Edit")
    assert say(page, "bridge " * 400) == changed
    assert page.run(VALUE) == ("bridge " * 400).strip()
    page.run("() => document.querySelector('#keep').click()")


def test_copying_and_writing_out(page: Page, site: Site) -> None:
    assert isinstance(page, PlaywrightTab)
    tab = page.page
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    page.run(BUTTON, "Copy")
    wait_for(page, "document.querySelector('#queued').textContent === 'Copied.'")
    shown = page.run(SHOWN)
    assert page.run("() => navigator.clipboard.readText()") == shown[-1][1]
    contents: dict[str, str] = {}
    for name in ("json", "markdown"):
        page.run("() => { document.querySelector('#export').open = true; }")
        with tab.expect_download() as download:
            tab.click(f"#export [name={name}]")
        contents[download.value.suggested_filename] = download.value.path().read_text()
    said = json.loads(contents["conversation.json"])
    assert [each["content"] for each in said["messages"]] == [text for _, text in shown]
    assert said["model"] == MODEL
    head = f"# Conversation with {said['model']}\n\n## You\n\n"
    assert contents["conversation.md"].startswith(head)


def test_how_it_looks(page: Page, site: Site) -> None:
    for name in ("details", "settings", "kept", "export"):
        page.run(f"() => {{ document.querySelector('#{name}').open = true; }}")
    wait_for(page, "document.querySelector('#kept li')")
    assert defects(page, site.extra) == []
    for size in (PHONE, ZOOMED):
        emulate(page, size=size)
        page.run("() => scrollTo(0, 0)")
        assert page.run(IN_SIGHT, "#prompt")
        assert page.run(IN_SIGHT, "#send")
    say(page, "bridge " * 400)  # an error
    assert not page.run("() => document.querySelector('#error').hidden")
    assert page.run(IN_SIGHT, "#send")
    assert defects(page, site.extra) == []


def test_an_error_that_ends_the_chat(page: Page, site: Site) -> None:
    site.faults.wheel_held = True
    try:
        page.open(f"{site.url}/chat.html?tier=wasm&model=/goldens/nothing-here")
        wait_for(page, "globalThis.bascule")
        for _ in range(12):
            page.press("Tab")
            if page.run("() => document.activeElement.id") == "cancel":
                break
        assert page.run("() => document.activeElement.id") == "cancel"
    finally:
        site.faults.wheel_held = False
    assert settled(page) == "error"
    assert page.run("() => document.activeElement.id") == "error"
    assert "nothing-here" in page.run(TEXT, "error-what")
    assert page.run("() => document.querySelector('#send').disabled")
    page.run("() => { document.querySelector('#error details').open = true; }")
    assert defects(page, site.extra) == []


def test_new_chat_forgets(page: Page, site: Site) -> None:
    page.run("() => document.querySelector('#new').click()")
    assert page.run(SHOWN) == []
    page.open(f"{site.url}/chat.html?tier=wasm&model={MODEL}")
    wait_for(page, "globalThis.bascule")
    assert page.run(SHOWN) == []


def test_markdown_is_sanitised(page: Page) -> None:
    result = page.run(
        """async (text) => {
          const { loadMarkdown, showMarkdown } = await import("/markdown.js");
          await loadMarkdown();
          const body = document.createElement("div");
          showMarkdown(body, text);
          return [body.innerHTML, body.textContent];
        }""",
        "# Title\n\n**bold** and `code`\n\n- one\n- [x] two\n\n"
        "[site](https://example.org) [bad](javascript:alert(1)) [data](data:text/html,x)\n\n"
        '<img src=x onerror="hacked=true"> <script>hacked = true</script>\n\n'
        '![pixel](https://example.org/pixel.png)\n\n<div style="position:fixed">over</div>',
    )
    html, text = result
    assert "<strong>bold</strong>" in html
    assert "<code>code</code>" in html
    assert "<li>one</li>" in html
    assert (
        '<a href="https://example.org" target="_blank" rel="noopener noreferrer">site</a>' in html
    )
    for tag in ("<img", "<script", "<h1", "<div", "javascript:", "data:", "<input"):
        assert tag not in html.replace("&lt;", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}")
    assert '<img src=x onerror="hacked=true">' in text  # shown as it was written
    assert "<script>hacked = true</script>" in text
