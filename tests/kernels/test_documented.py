"""The examples of docs/kernels.md, run as they stand."""

from __future__ import annotations

import ast
import re
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"


async def test_every_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        code = compile(block, "docs/kernels.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)  # our own documentation
        if code.co_flags & CO_COROUTINE:
            await result
