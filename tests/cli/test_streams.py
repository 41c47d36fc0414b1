"""Standard streams that end, fail or hold odd characters: a line of words, never a traceback."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bascule.cache import CachedItem
from bascule.cli import terminal
from tests.cli.test_generate import MODEL, _until
from tests.goldens import TINY_BERT

BASCULE = f"{sys.executable} -m bascule"
EMBED = f"{BASCULE} embed --tier cpu --model {TINY_BERT}"
CHAT = f"{BASCULE} chat --tier cpu {' '.join(MODEL)}"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [f"{EMBED} w4", f"{EMBED} --json w4", f"{BASCULE} --help"])
def test_a_full_disk_behind_stdout_is_told(command: str) -> None:
    result = shell(f"{command} > /dev/full")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "bascule: The answer cannot be written to stdout: No space left on device.",
        "         Make room there, or send the output somewhere else.",
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{EMBED} w4 >&-", "stdout is closed"),
        (f"{EMBED} --json w4 >&-", "stdout is closed"),
        (f"{BASCULE} cache ls >&-", "stdout is closed"),
        (f"{EMBED} <&-", "stdin is closed"),
        (f"{CHAT} <&-", "stdin is closed"),
        (f"{BASCULE} generate --tier cpu {' '.join(MODEL)} - <&-", "stdin is closed"),
        (f"{EMBED} < <(printf 'a\\377')", "byte 0xff is no utf-8"),
    ],
)
def test_a_stream_that_cannot_serve_is_told(command: str, words: str, tmp_path: Path) -> None:
    result = shell(command, PYTHONIOENCODING="utf-8", BASCULE_WEIGHTS=str(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert words in result.stderr.split("bascule: ", 1)[1]


def test_without_stderr_stdout_has_the_answer_alone() -> None:
    result = shell(f"{EMBED} --json w4 2>&-")
    assert (result.returncode, result.stdout[:2]) == (0, "[[")
    assert shell(f"{EMBED} --model nosuch w4 2>&-").stdout == ""


@pytest.mark.parametrize("command", [f"{EMBED} w4 w5", f"{EMBED} --json w4", f"{BASCULE} --help"])
def test_a_reader_that_has_gone_is_no_error(command: str) -> None:
    result = shell(f"{command} | true")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_terminal_that_is_not_utf_8_gets_escapes_and_one_line_about_it() -> None:
    result = shell(f"{EMBED} w4é 'w5 €' 😀", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert r"w4\xe9" in result.stdout
    assert r"w5 \u20ac" in result.stdout
    assert r"\U0001f600" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "stdout's encoding is ascii" in result.stderr


@pytest.mark.parametrize("text", ["[/]", "[bold]x[/bold]", "[link=http://a]b", ":smile:", "w\\["])
def test_texts_and_locations_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.similarity_table([text], np.ones((1, 3)), "[i] on [red]a device")
    terminal.cache_table([CachedItem(text, "fetched", 1, 1, 0, False)])
    result = capsys.readouterr().out
    assert result.count(text) == 2
    assert "[i] on [red]a device" in " ".join(result.split())


def test_a_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.similarity_table(["a\x1b[2Jb\r\nc\ud800", "x" * 60], np.ones((2, 3)), "cpu")
    result = capsys.readouterr().out
    assert r"a\x1b[2Jb\r\nc\ud800" in result
    assert "x" * 47 + "…" in result


READING = """
import asyncio
from bascule.cli.streams import reading
async def wait():
    with reading() as stdin:
        print("> ", flush=True)
        stdin.readline()
asyncio.run(wait())
"""


@pytest.mark.parametrize(
    ("command", "code"),
    [(CHAT.split(), 130), ([sys.executable, "-c", READING], -signal.SIGINT)],
)
def test_ctrl_c_leaves_where_input_is_waited_for(command: list[str], code: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        _until(ours, b"> ")
        _until_it_sleeps(process.pid)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == code
    finally:
        process.kill()
        os.close(ours)


def _until_it_sleeps(pid: int) -> None:
    """Until a process blocks in a read: its state stays "sleeping" and its clock stands still."""
    last, same = "", 0
    while same < 5:
        time.sleep(0.05)
        if Path("/proc").is_dir():
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            result = " ".join((words[0], *words[11:13]))
        else:
            result = "S"
        same = same + 1 if result == last and result[0] == "S" else 0
        last = result
