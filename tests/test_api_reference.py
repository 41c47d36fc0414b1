"""docs/api.md is what the docstrings say."""

from __future__ import annotations

import bascule
from tools.api_reference import DOCS, reference


def test_the_reference_is_up_to_date() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert text == reference(), "run tools/api_reference.py"


def test_it_has_every_public_name() -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("api.md", "errors.md"))
    missing = [
        name
        for name in bascule.__all__
        if f"## bascule.{name}\n" not in pages and f"`{name}`" not in pages
    ]
    assert not missing
