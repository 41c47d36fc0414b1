"""Whisper in each browser: spectrum, states, logits and greedy ids as natively, and real words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page
from tests.audio.sounds import KEPT_FRAMES, clicks
from tests.goldens import cosines
from tests.goldens.voice import recording
from tests.goldens.whisper import CONFIG, N_GREEDY, START, TEACHER, build, spectrum
from tests.tasks.test_speech import MEASURE

GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"
SCRIPT = """
import io, json
from array import array

import bascule
import numpy as np
from bascule.audio.features import LogMel
from bascule.models.table import FAMILIES
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.parameters import all_parameters
from bascule.weights.computed import write_computed
from bascule.weights.location import open_source
from bascule.weights.stream import load_weights, read_headers
from pyodide.http import pyfetch

WHISPER = next(family for family in FAMILIES if family.name == "whisper")

async def fetched(url):
    return np.load(io.BytesIO(await (await pyfetch(url)).bytes()))

async def numbers(tier, base, config_json, teacher, start, n_greedy, frames):
    config = WHISPER.config(config_json, "config.json")
    source = open_source(f"{base}/whisper")
    async with await bascule.open_device(tier) as device:
        backend = device.backend
        features = await LogMel.open(backend, 80)
        mel = (await features.features(await fetched(f"{base}/clicks.npy")))[:, frames]
        features.close()
        programs = []
        for phase in ("encode", "decode"):
            graph = Graph(phase)
            graph.output(WHISPER.phases[phase](graph, config, "f32"))
            programs.append(freeze(graph))
        parameters = all_parameters(programs)
        store = backend.store(parameters)

        async def headers():
            return WHISPER.as_matrices(await read_headers(source))

        await load_weights(source, write_computed(parameters, store), store, headers=headers)
        values = {value.name: value for program in programs for value in program.states}
        states = backend.states(list(values.values()), {"S": 64})
        for name, given in WHISPER.states(config).items():
            states.write(name, 0, given)
        encoder, decoder = [await backend.prepare(each, store, states) for each in programs]
        places = np.array([config.encoder.places], np.uint32)
        spectrum = await fetched(f"{base}/spectrum.npy")
        (heard,) = (await encoder.run({}, {"mel": spectrum, "lengths": places})).values()

        async def logits(position, token):
            states.write("tokens", 4 * position, array("I", [token]))
            states.write("position", 0, array("I", [position]))
            (row,) = (await decoder.run({}, {})).values()
            return row[0]

        taught = [(await logits(at, token)).tolist() for at, token in enumerate(teacher)]
        ids = [start]
        for _ in range(n_greedy):
            ids.append(int(np.argmax(await logits(len(ids) - 1, ids[-1]))))
        found = {"mel": mel.tolist(), "states": heard[0].tolist(), "logits": taught, "greedy": ids}
        for each in (encoder, decoder, states, store):
            each.close()
    return json.dumps(found)

async def words(name, tier, base):
    samples = await fetched(f"{base}/measure.npy")
    async with await bascule.load(name, tier=tier, prove=False) as model:
        return (await model.transcribe(samples)).text
"""


@pytest.mark.webgpu_engines
def test_numbers_and_words(engine: Engine, site: Site, shared_lab: Page) -> None:
    base = site.extra / f"speech-{engine.name}"
    build(base / "whisper")
    np.save(base / "spectrum.npy", spectrum())
    np.save(base / "clicks.npy", clicks())
    np.save(base / "measure.npy", recording("measure"))
    expected, mel = np.load(GOLDENS / "whisper.npz"), np.load(GOLDENS / "mel.npz")["clicks_80"]
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    url = f"{site.url}/extra/{base.name}"
    for tier in ("webgpu", "wasm", "cpu") if engine.webgpu else ("wasm", "cpu"):
        asked = (tier, url, CONFIG, TEACHER, START, N_GREEDY, KEPT_FRAMES)
        found = json.loads(shared_lab.run("(code) => lab.run(code)", f"await numbers{asked!r}"))
        assert np.abs(np.array(found["mel"]) - mel).max() < 2e-3, tier
        assert cosines(np.array(found["states"]), expected["states"]).min() > 0.99999, tier
        assert cosines(np.array(found["logits"]), expected["logits"]).min() > 0.99999, tier
        assert found["greedy"] == expected["greedy"].tolist(), tier
    said = "".join(row[2] for row in MEASURE).strip()
    asked = ("whisper-tiny.en", "wasm", url)
    assert shared_lab.run("(code) => lab.run(code)", f"await words{asked!r}") == said
