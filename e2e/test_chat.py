"""The chat page: somebody talks to a language model, and it answers as it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from bascule.weights.gguf import GgufHeader, parse_gguf
from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, wait_for
from tests.goldens.llama import tiny

TINY = tiny("tiny-q4_1")
HOSTILE = '<img src=x onerror="hacked=true">'
MODEL = "/goldens/tiny-llama/tiny-q4_1.gguf"
SHOWN = """() => [...document.querySelectorAll("#messages li")].map((item) => ({
  role: item.className.split(" ")[0],
  text: item.dataset.text,
  note: item.querySelector(".note")?.textContent ?? "",
}))"""
CHARACTERS = (
    "[...document.querySelectorAll('#messages .assistant > .body')].at(-1)?.textContent.length"
)
# Settings of a greedy answer, as a person would set them.
SET = """({ system, tokens }) => {
  const { elements } = document.querySelector("#options");
  if (!elements.greedy.checked) elements.greedy.click();
  elements.system.value = system;
  elements.max_new_tokens.value = tokens;
}"""
NONE = "\N{EN DASH}"


@pytest.fixture(scope="module")
def one_page(engine: Engine, plain_site: Site) -> Iterator[Page]:
    """One page per engine for all tests; without cross-origin isolation, which no chat needs."""
    page = engine.new_page()
    page.open(f"{plain_site.url}/chat.html?tier=wasm&count-proxies&model={MODEL}")
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    yield page
    page.close()


@pytest.fixture
def chat(one_page: Page) -> Page:
    """That page with a new chat."""
    one_page.run(
        """async (model) => {
          document.querySelector("#new").click();
          document.querySelector("#prompt").value = "";
          await bascule.load(model, "wasm");
        }""",
        MODEL,
    )
    return one_page


def said(page: Page, text: str) -> list[dict[str, Any]]:
    """Say something, wait for the answer, and tell the conversation."""
    sent = page.run(
        """(text) => {
          document.querySelector("#prompt").value = text;
          document.querySelector("#send").click();
          return document.querySelector("#status").dataset.state;
        }""",
        text,
    )
    assert sent == "busy"
    assert settled(page) == "ready"
    return page.run(SHOWN)


def error(page: Page) -> dict[str, str]:
    return page.run(
        """() => Object.fromEntries(["what", "hint", "category"].map(
          (id) => [id, document.querySelector(`#error-${id}`).textContent]))"""
    )


def hostile_file() -> bytes:
    """The tiny model with HOSTILE as the text of a token of its first golden answer."""
    data = TINY.path.read_bytes()
    header = parse_gguf(data, len(data), "tiny")
    assert isinstance(header, GgufHeader)
    texts = cast(tuple[str, ...], header.metadata["tokenizer.ggml.tokens"])
    merges = " ".join(cast(tuple[str, ...], header.metadata["tokenizer.ggml.merges"]))
    index = next(i for i in TINY.chats[0].ids if len(texts[i]) == 1 and texts[i] not in merges)
    old = texts[index].encode()
    # Longer by a multiple of 32 bytes: the tensors stay aligned.
    new = HOSTILE.encode() + b" " * (-(len(HOSTILE) - len(old)) % 32)
    result = len(old).to_bytes(8, "little") + old
    assert data.count(result) == 1
    data = data.replace(result, len(new).to_bytes(8, "little") + new)
    # The kinds follow their key, the types of the list and of its items, and their count.
    kinds = data.index(b"tokenizer.ggml.token_type") + 25 + 4 + 4 + 8
    user_defined = (4).to_bytes(4, "little")  # such a token stands for its own text
    at = kinds + 4 * index
    return data[:at] + user_defined + data[at + 4 :]


def test_greedy_answers_are_the_reference_s(chat: Page) -> None:
    chat.run(
        """() => {
          globalThis.changes = 0;
          new MutationObserver((records) => (changes += records.length)).observe(
            document.querySelector("#messages"), { subtree: true, childList: true });
        }"""
    )
    for golden in TINY.chats:
        system = golden.messages[0]["content"] if golden.messages[0]["role"] == "system" else ""
        chat.run(SET, {"system": system, "tokens": 32})
        question, answer = said(chat, golden.messages[-1]["content"])
        assert question == {"role": "user", "text": golden.messages[-1]["content"], "note": ""}
        assert answer["text"] == golden.text
        assert ("maximum number of tokens" in answer["note"]) == (golden.end is None)
        chat.run("() => document.querySelector('#new').click()")
        assert chat.run(SHOWN) == []
    assert chat.run("() => changes") > 2  # it came in pieces
    figures = "() => [...document.querySelectorAll('#figures dd')].map((each) => each.textContent)"
    speed, first, prompt, cache, gpu, heap = chat.run(figures)
    assert (speed, first, prompt) == (NONE, NONE, NONE)
    assert (cache, gpu) == ("0.3 MB", "none")
    assert float(heap.removesuffix(" MB")) > 10
    said(chat, "And then?")
    assert chat.run(figures)[0].endswith(" tokens/s")
    assert chat.run(figures)[1].endswith(" ms")
    said(chat, "And then?")
    reused = chat.run(figures)[2].split(", ")[1].split()
    assert int(reused[0]) > 20
    assert reused[1] == "reused"


def test_by_keyboard_alone(chat: Page) -> None:
    # It never comes to its end token, and the tier is slow: it writes when a driver presses a key.
    chat.run("() => bascule.load('/goldens/tiny-llama/tiny-k.gguf', 'cpu')")
    chat.run(SET, {"system": "", "tokens": 200})
    wait_for(chat, "document.activeElement.id === 'prompt'")
    chat.press(*"Which bridges", "Shift+Enter", *"move?")
    assert chat.run("() => document.querySelector('#prompt').value") == "Which bridges\nmove?"
    chat.press("Enter")
    wait_for(chat, f"{CHARACTERS} > 8")  # white space counts here, and not below
    chat.press("Escape")
    assert settled(chat) == "ready"
    question, answer = chat.run(SHOWN)
    assert question["text"] == "Which bridges\nmove?"
    assert len(answer["text"]) > 3
    assert answer["note"] == "Stopped."
    # The field has the focus still; the button stops as Esc does.
    chat.press(*"More", "Tab")
    assert chat.run("() => document.activeElement.id") == "send"
    chat.press("Enter")
    wait_for(chat, f"{CHARACTERS} > 3")
    assert chat.run("() => document.activeElement.textContent") == "Stop"
    chat.press("Enter")
    assert settled(chat) == "ready"
    shown = chat.run(SHOWN)
    assert [each["role"] for each in shown] == ["user", "assistant"] * 2
    assert shown[3]["note"] == "Stopped."
    assert chat.run("() => document.activeElement.id") == "prompt"
    chat.press("Tab", "Tab")
    assert chat.run("() => document.activeElement.id") == "new"
    chat.press("Enter")
    assert chat.run(SHOWN) == []
    assert chat.run("() => document.activeElement.id") == "prompt"


def test_a_message_that_does_not_fit(chat: Page) -> None:
    chat.run(SET, {"system": "", "tokens": 8})
    first = said(chat, "Which bridges move?")
    long = "bridge " * 400
    assert said(chat, long) == first
    result = error(chat)
    assert result["category"] == "context-length"
    assert "context of 256" in result["what"]
    assert "new chat" in result["hint"]
    # What was written is not lost, and loading again would not help.
    assert chat.run("() => document.querySelector('#prompt').value") == long.strip()
    assert chat.run("() => document.querySelector('#retry').hidden")
    again = said(chat, "Why?")
    assert again[:2] == first
    assert again[3]["text"]
    assert chat.run("() => document.querySelector('#error').hidden")
    chat.run("() => { document.querySelector('[name=max_new_tokens]').value = '0'; }")
    assert said(chat, "Why?") == again
    assert "max_new_tokens" in error(chat)["what"]


def test_what_a_model_writes_is_text(chat: Page, plain_site: Site) -> None:
    (plain_site.extra / "hostile.gguf").write_bytes(hostile_file())
    chat.run("() => bascule.load('/extra/hostile.gguf', 'wasm')")
    chat.run(SET, {"system": "", "tokens": 4})
    question, answer = said(chat, TINY.chats[0].messages[0]["content"])
    assert HOSTILE in answer["text"]
    question, answer = said(chat, "<script>hacked = true</script>")[2:]
    assert question["text"] == "<script>hacked = true</script>"
    assert chat.run("() => document.querySelectorAll('main img, main script').length") == 0
    assert chat.run("() => typeof hacked") == "undefined"


TWO = """async (messages) => {
  const heard = [];
  const ask = (name, tokens) => bascule.chat(
    messages, { greedy: true, max_new_tokens: tokens },
    { onPiece: (text, count) => heard.push([name, text, count]) });
  const made = await Promise.all([ask("first", 24), ask("second", 6)]);
  return { heard, made };
}"""
CANCELLED = """async (messages) => {
  const heard = [];
  let began;
  const first = new Promise((resolve) => (began = resolve));
  const ask = () => bascule.chat(messages, { greedy: true, max_new_tokens: 200 }, {
    onPiece: (text) => { heard.push(text); began(); },
  });
  const asked = [ask(), ask()];
  await first;
  await bascule.cancel();
  return (await Promise.allSettled(asked)).map(({ reason }) => reason?.category);
}"""
FAILS = """async ([name, ...given]) => bascule[name](...given).then(
  () => "nothing", (error) => `${error.category}: ${error.message}`)"""


def test_programs_ask_at_the_same_time(chat: Page) -> None:
    golden = TINY.chats[0]
    result = chat.run(TWO, golden.messages)
    for name, made, count in zip(("first", "second"), result["made"], (24, 6), strict=True):
        pieces = [(text, n) for who, text, n in result["heard"] if who == name]
        assert "".join(text for text, _ in pieces) == made["text"]
        assert [n for _, n in pieces] == sorted({n for _, n in pieces})
        assert made["ids"] == golden.ids[:count]
        assert made["prompt_ids"] == golden.prompt_ids
        assert (made["stop_reason"], made["stats"]["new_tokens"]) == ("length", count)
    names = [who for who, _, _ in result["heard"]]
    assert names == sorted(names)  # one after the other
    proxies: set[float] = set()
    for _ in range(3):
        assert chat.run(CANCELLED, golden.messages) == ["cancelled", "cancelled"]
        proxies.add(chat.run("() => bascule.stats()")["pyproxies"])
    assert len(proxies) == 1
    again = chat.run(
        "(ids) => bascule.generate(ids, { greedy: true, max_new_tokens: 24 })", golden.prompt_ids
    )
    assert again["ids"] == golden.ids[:24]

    assert "a sentence encoder" in chat.run(FAILS, ["embed", ["a text"]])
    assert "temprature" in chat.run(FAILS, ["chat", golden.messages, {"temprature": 1}])
    assert chat.run(FAILS, ["chat", [{"role": "nobody", "content": ""}]]).startswith("input: ")
    assert chat.run(FAILS, ["generate", 5]).startswith("input: ")
    # A load stops what the former model does, and the later of two loads stays.
    output = chat.run(
        """async (messages) => {
          const category = (error) => error.category;
          const asked = bascule.chat(messages, { max_new_tokens: 200 }).catch(category);
          const other = "/goldens/tiny-llama/tiny-mixed.gguf";
          const first = bascule.load(other, "wasm").catch(category);
          const { kind, dimension } = await bascule.load("/goldens/tiny-bert", "wasm");
          return [await asked, await first, kind, dimension];
        }""",
        golden.messages,
    )
    assert output == ["cancelled", "cancelled", "sentence-encoder", 35]
    assert "a language model" in chat.run(FAILS, ["chat", golden.messages])
    assert chat.run("() => document.querySelector('#send').disabled")
    assert not chat.run("() => document.querySelector('#other').hidden")
