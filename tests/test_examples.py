"""Each example runs natively as it runs in the console page (e2e/test_repl_page.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PRINTED = {
    "convolution.py": "320 x 240 pixels, equal to numpy: True",
    "heat.py": "heat at the start 720.000, after 200 steps 720.00",
    "kernel.py": "largest difference to numpy: 0.0",
    "kmeans.py": "largest distance of a centre to the true one: 0.00",
    "life.py": "2382 cells live; numpy says the same: True",
    "mandelbrot.py": "equal to numpy: True",
    "nbody.py": "change of the total momentum: ",
    "pca.py": "variance explained: [0.37",
}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(EXAMPLES / name)]
    ran = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert PRINTED[name] in ran.stdout
    written = [path for path in tmp_path.iterdir() if path.is_file()]
    pictures = [path.read_bytes()[:4] for path in written]
    assert pictures == ([b"\x89PNG"] if name == "mandelbrot.py" else [])


def test_the_console_offers_each() -> None:
    page = (EXAMPLES.parent / "web" / "repl.html").read_text()
    offered = re.findall(r'<option value="(\w+\.py)">', page)
    assert sorted(offered) == sorted(PRINTED) == sorted(path.name for path in EXAMPLES.glob("*.py"))
