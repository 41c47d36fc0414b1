"""A run that is cut off names the tests that hung, those of every worker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HANGING = """
import pathlib, time
import pytest
HERE = pathlib.Path(__file__).parent

def test_ends():
    pass

@pytest.mark.parametrize("name", ["one", "two"])
def test_hangs(name):
    (HERE / name).touch()
    while True:
        time.sleep(1)
"""


@pytest.mark.parametrize(("workers", "hanging"), [("0", ["one"]), ("2", ["one", "two"])])
def test_the_last_words_of_a_run(tmp_path: Path, workers: str, hanging: list[str]) -> None:
    shutil.copy(Path(__file__).parent.parent / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "test_it.py"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    record = tmp_path / "out" / "running-tests.txt"
    expected = [f"test_hangs[{name}]" for name in hanging]
    while run.poll() is None:  # pytest-timeout ends what never comes
        result = record.read_text() if record.is_file() else ""
        reached = all((tmp_path / name).exists() for name in hanging)
        if reached and all(name in result for name in expected):
            break
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert run.stderr is not None
    words = ""
    for line in run.stderr:
        words += line
        if "Ended by a signal" in words and all(name in words for name in expected):
            break
    else:
        pytest.fail(words)
    os.killpg(run.pid, signal.SIGKILL)  # pytest-xdist waits 10 s for workers that hang
    run.wait()
    run.stderr.close()
    assert "test_ends" not in words


def test_a_repeated_failure_is_printed_with_its_cause(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent.parent / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pathlib\n"
        "def test_second_time():\n"
        "    seen = pathlib.Path('seen')\n"
        "    if not seen.exists():\n"
        "        seen.touch()\n"
        "        raise TimeoutError('the machine was busy')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--reruns", "1", "test_it.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "TimeoutError: the machine was busy" in result.stdout
    assert "raise TimeoutError('the machine was busy')" in result.stdout  # the whole failure


def test_where_the_time_went_and_which_worker_was_idle(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent.parent / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(12))\ndef test_it(n):\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "load", "test_it.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "the 10 slowest of 12 tests" in result.stdout
    idle = re.search(r"idle at the end: gw0 (\d+) s, gw1 (\d+) s\n", result.stdout)
    assert idle
    assert "0" in idle.groups()  # the last one
