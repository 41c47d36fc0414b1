"""`bascule` as a process of its own, forked from one that has imported what commands import.

Importing is a third to a half of a short command's work. test_streams.py starts whole ones.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

TIMEOUT_S = 120
IMPORTED = ("bascule.cli.main", "bascule.device.loading", "bascule.tasks.models", "numpy", "rich")
IMPORTED += ("wgpu.backends.wgpu_native", "wasmtime", "tokenizers", __name__)
STREAMS = ("stdin", "stdout", "stderr")


def run(*arguments: str, stdin: str = "", **environment: str) -> CompletedProcess[str]:
    """The exit code of `bascule` and what it wrote; `environment` joins that of this process."""
    with tempfile.TemporaryDirectory(prefix="bascule-cli-") as name:
        folder = Path(name)
        (folder / "stdin").write_text(stdin)
        result = (arguments, {**os.environ, **environment}, folder)
        process = _context().Process(target=_command, args=result)
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired(arguments, TIMEOUT_S)
        out, err = ((folder / stream).read_text() for stream in STREAMS[1:])
        return CompletedProcess(arguments, process.exitcode, out, err)


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _command(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
    from bascule.cli.main import main

    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(STREAMS):
        flags = os.O_RDONLY if stream == "stdin" else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(folder / stream, flags, 0o600), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (the process ends with it)
    sys.exit(main(arguments))
