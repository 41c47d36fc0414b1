"""Language models on the WebAssembly tier, held to the goldens that the others are held to."""

from __future__ import annotations

from collections.abc import Callable

from e2e.conftest import Site
from e2e.engines import Engine, Page
from e2e.test_language import GENERATE, GREEDY, open_model
from tests.goldens import llama


def test_tiny_models_say_what_the_reference_says(
    engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    """With SmolLM2's Q4_1 they have every kind of block."""
    for name in ("tiny-mixed", "tiny-k"):
        page = open_model(site, shared, f"/goldens/tiny-llama/{name}.gguf", "wasm")
        chat = llama.tiny(name).chats[0]
        result = page.run(GENERATE, {"ids": chat.prompt_ids, "options": GREEDY})
        assert chat.parts_at(result["ids"]) is None, (engine.name, name)
        assert len(result["ids"]) == (32 if chat.end is None else chat.end)


def test_smollm2_says_what_the_reference_says(
    engine: Engine,
    site: Site,
    shared: Callable[[str], Page],
    record_property: Callable[[str, object], None],
) -> None:
    """The rates are printed."""
    page = open_model(site, shared, tier="wasm")
    chat = llama.prompts()["accents"]
    options = {**GREEDY, "max_new_tokens": 32 if engine.name.startswith("chromium") else 6}
    result = page.run(GENERATE, {"ids": chat.prompt_ids, "options": options})
    assert chat.parts_at(result["ids"]) is None, result["text"]
    assert len(result["ids"]) == min(options["max_new_tokens"], chat.end or 32)
    for key in ("prefill_tokens_per_s", "decode_tokens_per_s"):
        record_property(key, result["stats"][key])
        print(f"{engine.name}, wasm: {key} {result['stats'][key]:.1f}")
