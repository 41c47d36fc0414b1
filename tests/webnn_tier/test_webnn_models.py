"""The WebNN tier as users meet it: whole models, the survey, and what it says of itself."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import bascule
from bascule.backend.webnn.backend import WebNnBackend
from bascule.choosing.survey import survey
from bascule.choosing.switches import Switches
from bascule.models.bert import BERT
from bascule.models.encoder.config import EncoderConfig
from bascule.program.compile import freeze
from bascule.program.program import Dim
from bascule.tasks.sentence_graph import Encoder, sentence_encoder
from tests.goldens import TINY_BERT, cosines, golden

if sys.version_info[:2] != (3, 12):
    pytest.skip("pywebnn has wheels for Python 3.12 alone", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("backend")


async def test_tiny_bert_gives_its_goldens_on_webnn() -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT, tier="webnn") as model:
        result = await model.embed(expected.texts)
        one_by_one = [(await model.embed([text]))[0] for text in expected.texts]
        assert model.tier == "webnn"
    assert (cosines(result, expected.embeddings) >= 0.99999).all()
    assert (cosines(one_by_one, expected.embeddings) >= 0.99999).all()


async def test_webnn_in_the_survey_is_measured_and_can_hold_less() -> None:
    results = {facts.tier: facts for facts in (await survey(Switches(), budget_s=0.5)).tiers}
    webnn, cpu = results["webnn"], results["cpu"]
    assert not webnn.refused
    assert "pywebnn" in webnn.device_name
    assert set(webnn.speeds.samples) == {"product", "pass"}  # blocks it has none
    assert webnn.total_nbytes
    assert cpu.total_nbytes
    assert webnn.total_nbytes < cpu.total_nbytes / 3


async def test_capabilities_name_the_device() -> None:
    assert (await bascule.capabilities()).webnn == {"cpu"}


async def test_one_graph_at_a_time_holds_weights(backend: WebNnBackend) -> None:
    """Executables of six buckets, each run twice: no more than one graph is ever alive."""
    config = EncoderConfig(30, 12, 1, 2, 20, 16, "gelu", 1e-12)
    alive: list[int] = []
    made = []
    for limit in (2, 3, 5, 7, 11, 16):
        graph = sentence_encoder(Encoder(BERT, config), Dim("B", 2), Dim("T", limit))
        program = freeze(graph)
        store = backend.store(program.parameters)
        for array in store.arrays.values():
            np.asarray(array)[...] = 0.5
        made.append((limit, await backend.prepare(program, store)))
    for limit, executable in (*made, *made):
        inputs = {"ids": np.ones((1, limit), np.uint32), "lengths": np.full(1, limit, np.uint32)}
        await executable.run({"B": 1, "T": limit}, inputs)
        alive.append(backend.stats["graphs"])
    assert set(alive) == {1}
    for _, executable in made:
        executable.close()
    assert backend.stats["graphs"] == 0
