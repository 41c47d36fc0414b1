"""Editing a Python or WGSL file and reloading the page runs the new code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.conftest import ROOT, serving, settled
from e2e.engines import Engine, Page


@pytest.mark.one_engine
def test_edits_reach_the_page(
    webgpu_engine: Engine, new_page: Callable[[str], Page], tmp_path: Path
) -> None:
    for name in ("py", "web", "shaders"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    norm = """async () => {
      const { data } = await bascule.embed(["w4 w5"]);
      return Math.hypot(...data);
    }"""
    with serving(checkout=tmp_path) as site:
        page = new_page(f"{site.offline_url}/?model=/goldens/tiny-bert&tier=webgpu")
        assert settled(page) == "ready"
        assert abs(page.run(norm) - 1) < 1e-3
        page.run("() => bascule.offline")  # from here on, its service worker serves it

        edit(
            tmp_path / "shaders" / "l2_normalise.wgsl",
            "x[start + c] * scale;",
            "x[start + c] * scale * 3.0;",
        )
        # What the shader is held to has to go along, or it is left as one that computes wrongly.
        reference = tmp_path / "py" / "bascule" / "program" / "ops" / "norm.py"
        edit(reference, "return x / np.maximum(np.sqrt(", "return 3 * x / np.maximum(np.sqrt(")
        tiers = tmp_path / "py" / "bascule" / "device" / "open_tiers.py"
        edit(tiers, "was asked", "has been asked")
        page.open(f"{site.offline_url}/?model=/goldens/tiny-bert&tier=webgpu")
        assert settled(page) == "ready"
        assert abs(page.run(norm) - 3) < 1e-3
        assert "has been asked" in page.run("() => document.querySelector('#reason').textContent")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
