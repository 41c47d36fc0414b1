"""The page's half of the text room, run by node: the same JavaScript, without a browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bascule.text.template_limits import TemplateFault, TemplateRefusal, limits_json

HERE = Path(__file__).resolve().parent


def _ask(question: dict[str, Any]) -> Any:
    told = subprocess.run(
        ["node", HERE / "in_node.mjs"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


class NodeTokenizer:
    """See `Tokenizer`."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._json = tokenizer_json.decode()

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        return _ask({"tokenizer": self._json, "texts": list(texts), "special": special})


class NodeRenderer:
    """See `Renderer`."""

    def __init__(self, source: str) -> None:
        self._source = source

    def render(self, variables: dict[str, object]) -> str:
        return render_all([(self._source, variables)])[0]


def render_all(templates: Sequence[tuple[str, dict[str, object]]]) -> list[str]:
    """Many templates in one process; the first that fails raises."""
    return [_text(answer) for answer in answers(templates)]


def answers(templates: Sequence[tuple[str, dict[str, object]]]) -> list[dict[str, str]]:
    asked = [
        {"source": source, "limits": limits_json(), "variables": json.dumps(variables)}
        for source, variables in templates
    ]
    return _ask({"templates": asked})


def _text(answer: dict[str, str]) -> str:
    if "text" in answer:
        return answer["text"]
    kind = TemplateRefusal if answer["name"] == "TemplateRefusal" else TemplateFault
    raise kind(answer["fault"])
