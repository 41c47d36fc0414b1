"""Pages and workers name all modules that they will import: browsers then ask for all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "web"
IMPORT = re.compile(r'^(?:import|export)\b[^;"]*"(\.[^"]+)";', re.MULTILINE)
# What Python starts from, beside the page's own modules.
PYTHON = "pyodide/pyodide.mjs"
# Of pages that load a model at once: it starts Python, so it comes first, and alone.
FIRST = "page-client.js"


def imported(file: Path) -> list[Path]:
    """The modules that a file itself imports."""
    code = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
    return [(file.parent / name).resolve() for name in IMPORT.findall(code)]


def graph(start: Path) -> set[Path]:
    """All modules that a file needs, without itself."""
    result: set[Path] = set()
    pending = [start]
    while pending:
        new = set(imported(pending.pop())) - result
        result |= new
        pending += new
    return result - {start}


@pytest.mark.parametrize(
    ("page", "script"),
    [
        ("index", "main.js"),
        ("chat", "chat.js"),
        ("repl", "repl.js"),
        ("transcribe", "transcribe.js"),
        ("pictures", "pictures.js"),
        ("bench", "bench.js"),
    ],
)
def test_a_page_preloads_all_its_modules(page: str, script: str) -> None:
    html = (WEB / f"{page}.html").read_text()
    assert f'<script type="module" src="{script}"></script>' in html
    listed = re.findall(r'<link rel="modulepreload" href="([^"]+)" />', html)
    assert sorted(listed) == sorted(set(listed))
    needed = {WEB / script, *graph(WEB / script)}
    assert set(listed) == {path.relative_to(WEB).as_posix() for path in needed} | {PYTHON}
    assert 'rel="preload" as="fetch" crossorigin href="wheel/index.json"' in html


@pytest.mark.parametrize("page", ["index", "chat", "transcribe", "pictures"])
def test_a_page_starts_python_before_it_has_all_its_modules(page: str) -> None:
    html = (WEB / f"{page}.html").read_text()
    script = f'<script type="module" async src="{FIRST}"></script>'
    assert html.index(script) < html.index('rel="stylesheet"')
    listed = re.findall(r'<link rel="modulepreload" href="([^"]+)" />', html)
    needed = [FIRST, *(path.relative_to(WEB).as_posix() for path in graph(WEB / FIRST)), PYTHON]
    assert len(needed) <= 10 < len(listed)
    assert sorted(listed[: len(needed)]) == sorted(needed)


@pytest.mark.parametrize("worker", ["worker.js", "prefetch.js", "repl-worker.js"])
def test_a_worker_imports_all_its_modules_itself(worker: str) -> None:
    assert set(imported(WEB / worker)) == graph(WEB / worker)


def test_a_worker_starts_without_the_modules_of_the_gpu() -> None:
    """web/early.js imports them where the last load took the GPU."""
    of_the_gpu = graph(WEB / "early-gpu.js")
    assert WEB / "bridge" / "gpu.js" in of_the_gpu
    assert not of_the_gpu & graph(WEB / "worker.js")
    assert "early-gpu.js" in (WEB / "engine.js").read_text()  # kept for a visit without a network
