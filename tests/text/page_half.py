"""The page's half of the text room, run by node: the same JavaScript, without a browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def _ask(question: dict[str, Any]) -> Any:
    result = subprocess.run(
        ["node", HERE / "in_node.mjs"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


class NodeTokenizer:
    """See `Tokenizer`."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._json = tokenizer_json.decode()

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        return _ask({"tokenizer": self._json, "texts": list(texts), "special": special})

    def decode_all(self, rows: Sequence[Sequence[int]], *, skip_special: bool) -> list[str] | None:
        """The texts of rows of ids; None where the file has no decoder that is known."""
        question = {"tokenizer": self._json, "rows": rows, "skipSpecial": skip_special}
        return _ask(question)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        result = self.decode_all([ids], skip_special=skip_special)
        assert result is not None
        return result[0]
