"""What a snapshot of Python holds, tried in this Python: one process collects, another prepares."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bascule

COLLECT = """
import sys
sys.path.insert(0, sys.argv[1])
import json, numpy, bascule.text.marks, bascule.backend.cpu
from bascule.page.snapshot import collect
open(sys.argv[2], "wb").write(collect(sys.argv[1]))
"""

# As in a Pyodide without numpy; the package's files go away before the rest is imported.
PREPARE = """
import json, random, shutil, sys
sys.path.insert(0, sys.argv[1])
class NoNumpy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy" and hidden:
            raise ModuleNotFoundError(name)
hidden = True
sys.meta_path.insert(0, NoNumpy())
from bascule.page.snapshot import prepare, resume
names = prepare("the key", sys.argv[1], open(sys.argv[2], "rb").read())
state = random.getstate()
shutil.rmtree(sys.argv[1])
hidden = False
found = {
  "names": names, "numpy": "numpy" in sys.modules,
  "other": resume("another key", "{}"), "same": resume("the key", '{"BASCULE_X": "1"}'),
  "reseeded": random.getstate() != state,
}
import os, numpy, bascule.backend.cpu, bascule.machine.safari
from bascule.base import assets
found |= {
  "environment": os.environ["BASCULE_X"],
  "file": bascule.backend.cpu.__file__,
  "shader": len(assets.text("shaders/parts/" + sys.argv[3])),
  "wasm": assets.path("web/wasm/kernels.wasm").read_bytes()[:4] == b"\\0asm",
}
print(json.dumps(found))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package as a wheel has it."""
    home = Path(bascule.__file__).parent
    root = home.parent.parent
    shutil.copytree(home, tmp_path / "lib" / "bascule")
    for name in ("web", "shaders"):
        shutil.copytree(root / name, tmp_path / "lib" / "bascule" / name)
    return tmp_path / "lib"


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_modules_code_and_files_outlive_the_package(package: Path, tmp_path: Path) -> None:
    collected = str(tmp_path / "collected")
    part = next((package / "bascule" / "shaders" / "parts").glob("*.wgsl"))
    nbytes = len(part.read_text("utf-8"))
    run(COLLECT, str(package), collected)
    result = json.loads(run(PREPARE, str(package), collected, part.name))
    assert "bascule.text.marks" in result["names"]
    assert "json" in result["names"]
    assert not [name for name in result["names"] if name.startswith("numpy")]
    assert not result["numpy"]
    assert result["same"]
    assert not result["other"]
    assert result["reseeded"]
    assert result["environment"] == "1"
    assert result["file"] == str(package / "bascule" / "backend" / "cpu.py")
    assert result["shader"] == nbytes
    assert result["wasm"]
