"""The commands that make what a page needs: the wheel, and Pyodide."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_wheel_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bascule wheel`."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="(the current folder)"
    )


def add_pyodide_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bascule pyodide`."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE_OR_URL",
        help="an archive, a folder, or a URL of one (a folder's ends in /); else Pyodide's CDN",
    )


async def wheel(parsed: argparse.Namespace) -> None:
    """Write the wheel, and the index.json that names it to client.js."""
    from bascule.server.wheel import write_wheel

    print(write_wheel(parsed.folder))


async def pyodide(parsed: argparse.Namespace) -> None:
    """Put Pyodide into the cache folder."""
    from bascule.server.pyodide import fetch_pyodide
    from bascule.terminal import progress_bar

    with progress_bar() as tell:
        folder = await fetch_pyodide(parsed.source, tell)
    print(folder)
