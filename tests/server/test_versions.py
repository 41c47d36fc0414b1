"""The versions that docs/pyodide.md names are those that the tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bascule.server.pyodide import PYODIDE_VERSION

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_table_of_versions_is_what_is_tested() -> None:
    text = (ROOT / "docs" / "pyodide.md").read_text()
    rows = re.findall(r"^\| (Pyodide|PyScript) \| ([\d.]+) \|[^|]*\|([^|]*)\|", text, re.M)
    packages = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert [(name, version) for name, version, _ in rows] == [
        ("Pyodide", PYODIDE_VERSION),
        ("Pyodide", packages["pyodide"]),
        ("PyScript", packages["@pyscript/core"]),
    ]
    for *_, tests in rows:
        for test in tests.split(","):
            assert (ROOT / test.strip()).exists()
