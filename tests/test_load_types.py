"""What `load` gives is typed by the known names, and the table of names has them all."""

from __future__ import annotations

import inspect
from typing import Literal, get_args, get_origin, get_overloads, get_type_hints

from bascule import EmbeddingModel, LanguageModel
from bascule.model.registry import KNOWN
from bascule.platform import load

KINDS = {"sentence-encoder": EmbeddingModel, "language-model": LanguageModel}


def test_the_overloads_name_every_known_model() -> None:
    named: dict[str, type] = {}
    for one in get_overloads(load):
        hints = get_type_hints(one)
        if get_origin(hints["model"]) is Literal:
            named |= dict.fromkeys(get_args(hints["model"]), hints["return"])
    assert named == {model.name: KINDS[model.kind] for model in KNOWN.values()}


def test_the_overloads_have_every_option() -> None:
    real = dict(get_type_hints(load))
    del real["return"], real["model"]
    assert set(real) == set(inspect.signature(load).parameters) - {"model"}
    for one in get_overloads(load):
        (options,) = get_args(get_type_hints(one)["options"])
        assert get_type_hints(options) == real
