"""What web/worker.js calls, called from here: JSON in, JSON out, and pieces meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import bascule
from bascule import Sampling
from bascule.errors import InputError, SetupError
from bascule.page.text import ids_of, options_from_json, prompt_from_json
from bascule.page.worker_browser import PageSession
from bascule.tasks.options import read_options
from bascule.tasks.sampler import GREEDY
from tests.goldens import HERE
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, PAIRS, QUERY, classifier_golden
from tests.goldens.families import build
from tests.goldens.llama import tiny

TINY = tiny("tiny-q4_1")
CHAT = TINY.chats[0]
GREEDY_32 = json.dumps({"greedy": True, "max_new_tokens": 32})


class Page:
    """A session on the CPU, and what it was told to report."""

    def __init__(self) -> None:
        self.session = PageSession()
        self.began = asyncio.Event()
        self.pieces: list[tuple[str, int]] = []
        self.reports: list[tuple[Any, ...]] = []

    async def load(self, model: str = str(TINY.path)) -> Any:
        return json.loads(await self.session.load(model, "cpu", self._report))

    async def chat(self, options: str = GREEDY_32) -> Any:
        messages = json.dumps(CHAT.messages)
        return json.loads(
            await self.session.chat(messages, options, self._report_piece, self._report)
        )

    def _report(self, *told: Any) -> None:
        self.reports.append(told)

    def _report_piece(self, text: str, n_tokens: int) -> None:
        self.pieces.append((text, n_tokens))
        self.began.set()


def test_a_pages_urls_are_set_in_a_page() -> None:
    with pytest.raises(SetupError, match="BASCULE_CACHE"):
        bascule.configure(bridge="/bascule/")


def test_options() -> None:
    assert options_from_json('{"greedy": true, "max_new_tokens": 5}') == {
        "sampling": GREEDY,
        "max_new_tokens": 5,
    }
    result = options_from_json('{"temperature": 1, "seed": null, "top_k": 4, "stop": ["a"]}')
    assert result == {"temperature": 1, "top_k": 4, "stop": ["a"]}
    assert options_from_json("{}") == {}
    words = '{"max_tokens": 5, "temperature": 0, "top_p": 0.9, "seed": 7, "stop": "a"}'
    asked = read_options(options_from_json(words))
    assert (asked.max_new_tokens, asked.stop) == (5, ("a",))
    assert asked.sampling == Sampling(temperature=0, top_p=0.9, seed=7)


@pytest.mark.parametrize(
    "options",
    [
        "[]",
        '{"temprature": 1}',
        '{"temperature": "hot"}',
        '{"max_new_tokens": 1.5}',
        '{"max_new_tokens": true}',
        '{"greedy": 1}',
        '{"greedy": true, "top_p": 0.5}',
        '{"stop": ["a", 1]}',
        '{"stop": ""}',
        '{"max_tokens": 5, "max_new_tokens": 5}',
        '{"progress": 1}',
    ],
)
def test_bad_options(options: str) -> None:
    with pytest.raises(InputError):
        options_from_json(options)


def test_prompts() -> None:
    assert prompt_from_json('"a text"') == "a text"
    assert prompt_from_json("[1, 2]") == [1, 2]
    for result in (5, [1.5], ["1"], [True], {"a": 1}, None):
        with pytest.raises(InputError):
            ids_of(result)


async def test_a_chat_streams_what_it_gives_back() -> None:
    page = Page()
    result = await page.load()
    assert (result["kind"], result["maxLength"], result["canChat"]) == ("language-model", 256, True)
    made = await page.chat()
    assert made["ids"] == CHAT.ids
    assert made["text"] == CHAT.text == "".join(text for text, _ in page.pieces)
    assert page.pieces[-1][1] == 32
    assert page.reports[-1] == (
        "prefill",
        len(CHAT.prompt_ids) - 1,
        len(CHAT.prompt_ids) - 1,
        "tokens",
    )
    await page.session.close()


async def test_a_cancel_stops_what_runs_and_what_waits() -> None:
    page = Page()
    await page.load()
    asked = [
        asyncio.ensure_future(page.chat('{"greedy": true, "max_new_tokens": 200}')) for _ in "ab"
    ]
    await page.began.wait()
    await page.session.cancel()
    result = await asyncio.gather(*asked)
    assert [each["error"]["category"] for each in result] == ["cancelled", "cancelled"]
    assert (await page.chat())["ids"] == CHAT.ids
    await page.session.close()


async def test_the_later_of_two_loads_stays_and_stops_a_chat() -> None:
    page = Page()
    await page.load()
    chat = asyncio.ensure_future(page.chat('{"max_new_tokens": 200}'))
    await page.began.wait()
    first = asyncio.ensure_future(page.load(str(HERE / "tiny-llama/tiny-mixed.gguf")))
    await asyncio.sleep(0)
    second = await page.load(str(HERE / "tiny-bert"))
    assert (await chat)["error"]["category"] == "cancelled"
    assert (await first)["error"]["category"] == "cancelled"
    assert (second["kind"], second["dimension"]) == ("sentence-encoder", 35)
    result = await page.chat()
    assert result["error"]["category"] == "input"
    assert "a language model" in result["error"]["what"]
    await page.session.close()


async def test_a_classifier_ranks_and_classifies(tmp_path: Path) -> None:
    page, case = Page(), CLASSIFIERS[0]
    loaded = await page.load(str(build(case, tmp_path / "m")))
    assert (loaded["kind"], loaded["labels"], loaded["maxTokens"]) == (
        "classifier",
        ["LABEL_0"],
        40,
    )
    ranking = json.loads(await page.session.rank(QUERY, json.dumps(ANSWERS)))
    scores = classifier_golden(case.name)["scores"]
    assert ranking["scores"] == pytest.approx(scores[: len(ANSWERS)].tolist(), abs=1e-4)
    assert ranking["truncated"] == [4]
    classes = json.loads(await page.session.classify(json.dumps(["w4", *PAIRS])))
    assert [row["probability"] for row in classes[1:]] == pytest.approx(scores.tolist(), abs=1e-4)
    wrong = json.loads(await page.session.embed('["w4"]'))["error"]
    assert "which is a sequence classifier" in wrong["what"]
    assert wrong["hint"] == "Load a sentence encoder; this model can rank and classify."
    await page.session.close()


async def test_another_model_ranks_nothing() -> None:
    page = Page()
    await page.load()
    wrong = json.loads(await page.session.rank("q", "[]"))["error"]
    assert "which is a language model" in wrong["what"]
    assert wrong["hint"] == "Load a sequence classifier; this model can chat and generate."
    await page.session.close()
