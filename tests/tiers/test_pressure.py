"""A machine under pressure is yielded to, and the answer stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule.machine import pressure
from bascule.machine.pressure import LinuxPressure, PressureState, has_linux_pressure
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

LINE = "some avg10={} avg60=1.00 avg300=1.00 total=21313645867\nfull avg10=0.00 avg60=0.00\n"


class Told:
    """A machine that says so."""

    def __init__(self, state: PressureState) -> None:
        self.state: PressureState = state
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("percent", "state"),
    [
        ("0.00", "nominal"),
        ("19.99", "nominal"),
        ("20.00", "fair"),
        ("61.5", "serious"),
        ("90.00", "critical"),
        ("100.00", "critical"),
    ],
)
def test_what_linux_tells(tmp_path: Path, percent: str, state: str) -> None:
    file = tmp_path / "cpu"
    file.write_text(LINE.format(percent))
    assert has_linux_pressure(file)
    assert LinuxPressure(file).state == state


@pytest.mark.parametrize("text", ["", "full avg10=3.00", "some avg10=lots avg60=1", "some", "\x00"])
def test_a_file_that_tells_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cpu"
    file.write_text(text)
    assert not has_linux_pressure(file)
    assert LinuxPressure(file).state == "nominal"


async def test_where_nobody_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pressure, "_CPU", tmp_path / "none")
    assert await bascule.open_pressure() is None
    assert (await bascule.capabilities(dispatch=False)).compute_pressure is False


def test_the_file_is_read_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pressure, "monotonic", lambda: now[0])
    file = tmp_path / "cpu"
    file.write_text(LINE.format("95.0"))
    result = LinuxPressure(file)
    assert result.state == "critical"
    file.write_text(LINE.format("1.0"))
    now[0] += 0.5
    assert result.state == "critical"
    now[0] += 0.6
    assert result.state == "nominal"


async def test_embeddings_yield() -> None:
    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        texts = ["w4 w5", " ".join(["w6"] * 12)]
        expected = await model.embed(texts)
        assert model.stats["pressure_yields"] == 0
        result = Told("critical")
        model.yield_to(result)
        assert np.array_equal(await model.embed(texts), expected)
        assert model.stats["pressure_yields"] >= 1
        result.state = "serious"
        yields = model.stats["pressure_yields"]
        await model.embed(texts)
        assert model.stats["pressure_yields"] == yields
    assert result.closed


async def test_a_text_yields_and_queues_nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_k = tiny("tiny-k")
    options = {"sampling": GREEDY, "max_new_tokens": 24}
    async with await bascule.load(tiny_k.path, tier="webgpu") as model:
        prompt = tiny_k.chats[0].prompt_ids
        whole = await model.generate(prompt, **options)
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def note(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        monkeypatch.setattr("bascule.tasks.loaded.asyncio.sleep", note)
        model.yield_to(Told("critical"))
        again = await model.generate(prompt, **options)
        monkeypatch.undo()
        assert again.ids == whole.ids
        # The first token alone, then four at a time: a pause before each.
        assert model.stats["pressure_yields"] == sum(p == 0.05 for p in pauses) >= 6
