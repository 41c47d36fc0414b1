"""One model on every tier of one page: the same answer, and the right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page
from e2e.test_language import logits
from e2e.test_matrix import embed
from tests.goldens import cosines, golden, llama
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, QUERY, classifier_golden
from tests.goldens.families import build as build_classifier
from tests.goldens.module_folders import GOLDENS, RIGHT, TEXTS, build

COSINE = 0.99999
LOAD = "async ({ model, tier }) => bascule.load(model, tier)"
# Types of tokens for the two texts; tables that are computed where the model is loaded.
RERANKERS = (CLASSIFIERS[0], CLASSIFIERS[-1])
RANK = "({ query, texts }) => bascule.rank(query, texts)"
# Folders whose modules have weights, prompts that are left out, names of old checkpoints.
MODULES = ("layer norm, dense, normalize", "prompt left out of max", "gamma and beta")


@pytest.fixture
def page(site: Site, shared: Callable[[str], Page]) -> Page:
    result = shared(f"{site.url}/?model=/goldens/tiny-bert&tier=wasm&tune=off")
    assert settled(result) == "ready", result.run("() => document.body.innerText")
    return result


@pytest.mark.webgpu_engines
def test_minilm_on_every_tier(engine: Engine, page: Page) -> None:
    """WASM embeds all the golden's texts."""
    expected = golden("minilm")
    short = [i for i, ids in enumerate(expected.ids) if len(ids) <= 17][:8]

    def answer(tier: str) -> np.ndarray:
        page.run(LOAD, {"model": "all-MiniLM-L6-v2", "tier": tier})
        if tier != "wasm":
            return embed(page, [expected.texts[i] for i in short])
        rows = embed(page, expected.texts)
        assert (cosines(rows, expected.embeddings) >= COSINE).all()
        return rows[short]

    results = {tier: answer(tier) for tier in tiers_of(page)}
    assert_same({"float64": expected.embeddings[short], **results}, engine)


@pytest.mark.one_engine
def test_float64_in_a_page(engine: Engine, page: Page) -> None:
    """All but the last rounding to float32."""
    expected = golden("tiny-bert")
    loaded = page.run(LOAD, {"model": "/goldens/tiny-bert", "tier": "reference"})
    assert loaded["tier"] == "reference"
    rows = embed(page, expected.texts)
    assert np.abs(rows - expected.embeddings.astype(np.float64)).max() < 6e-8


@pytest.mark.one_engine
def test_modules_on_every_tier(engine: Engine, site: Site, page: Page) -> None:
    tiers = tiers_of(page)
    for at, name in enumerate(MODULES):
        folder = f"modules-{at}"
        build(next(case for case in RIGHT if case.name == name), site.extra / folder)

        def embedded(tier: str, folder: str = folder) -> np.ndarray:
            page.run(LOAD, {"model": f"/extra/{folder}", "tier": tier})
            return embed(page, TEXTS)

        rows = {tier: embedded(tier) for tier in tiers}
        assert_same({"sentence-transformers": np.load(GOLDENS)[name], **rows}, engine)


@pytest.mark.one_engine
def test_rerankers_on_every_tier(engine: Engine, site: Site, page: Page) -> None:
    tiers = tiers_of(page)
    for case in RERANKERS:
        folder = case.name.replace(" ", "-")
        build_classifier(case, site.extra / folder)
        scores = classifier_golden(case.name)["scores"][: len(ANSWERS)]
        for tier in tiers:
            loaded = page.run(LOAD, {"model": f"/extra/{folder}", "tier": tier})
            assert (loaded["kind"], loaded["labels"]) == ("classifier", ["LABEL_0"])
            ranking = page.run(RANK, {"query": QUERY, "texts": ANSWERS})
            assert np.abs(np.array(ranking["scores"]) - scores).max() < 1e-4, (case.name, tier)
            assert ranking["truncated"] == [4]


@pytest.mark.webgpu_engines
def test_a_language_model_on_every_tier(engine: Engine, page: Page) -> None:
    """Of a tiny one, logits. Answers of the others, SmolLM2's among them, are held to goldens tier
    by tier: test_language.py, test_wasm_language.py, and for numpy natively tests/model."""
    ids = llama.tiny("tiny-k").chats[0].prompt_ids

    def answer(tier: str) -> np.ndarray:
        page.run(LOAD, {"model": "/goldens/tiny-llama/tiny-k.gguf", "tier": tier})
        return logits(page, ids)

    assert_same({tier: answer(tier) for tier in tiers_of(page)}, engine)


def tiers_of(page: Page) -> list[str]:
    """Those that this page's own survey has not rejected, and the CPU tier, which it spared."""
    decision = page.run(LOAD, {"model": "/goldens/tiny-bert", "tier": "auto"})["decision"]
    tiers = [row["tier"] for row in decision["considered"] if not row["refused"]]
    assert "wasm" in tiers
    return list(dict.fromkeys([*tiers, "cpu"]))


def assert_same(found: Mapping[str, np.ndarray], engine: Engine) -> None:
    """Each answer against the first; printed, then judged."""
    (first, expected), *others = found.items()
    minimum = {name: float(cosines(rows, expected).min()) for name, rows in others}
    result = ", ".join(f"{name} {cosine:.7f}" for name, cosine in minimum.items())
    print(f"{engine.name}, least cosine with {first}: {result}")
    assert all(np.isfinite(rows).all() for rows in found.values())
    assert min(minimum.values()) >= COSINE
