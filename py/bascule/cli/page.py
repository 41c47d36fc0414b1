"""The commands that make what a page needs: the wheel, its snapshot, and Pyodide."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bascule.errors import SetupError


def add_wheel_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bascule wheel`."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="(the current folder)"
    )


def add_snapshot_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bascule snapshot`."""
    add_wheel_arguments(parser)
    parser.add_argument(
        "--pyodide", type=Path, metavar="DIR", help="the site's Pyodide (the cache folder's)"
    )


def add_pyodide_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bascule pyodide`."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE_OR_URL",
        help="an archive, a folder, or a URL of one (a folder's ends in /); else Pyodide's CDN",
    )
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[],
        metavar="NAME",
        help="packages of Pyodide to fetch as well, with what they need, such as matplotlib",
    )


async def wheel(parsed: argparse.Namespace) -> None:
    """Write the wheel that a page installs.

    An index.json beside it names it to client.js.
    """
    from bascule.server.wheel import write_wheel

    print(write_wheel(parsed.folder))


async def snapshot(parsed: argparse.Namespace) -> None:
    """Write the wheel and a memory snapshot that Python starts from in a page."""
    from bascule.server.pyodide import pyodide_folder
    from bascule.server.snapshot import write_site_snapshot

    pyodide: Path = parsed.pyodide or pyodide_folder()
    if not (pyodide / "pyodide.mjs").is_file():
        raise SetupError(f"{pyodide} has no pyodide.mjs.", hint="Name the folder that has it.")
    print(await asyncio.to_thread(write_site_snapshot, pyodide, parsed.folder))


async def pyodide(parsed: argparse.Namespace) -> None:
    """Fetch Pyodide for `serve`."""
    from bascule.cli.terminal import progress_bar
    from bascule.server.pyodide import fetch_pyodide

    with progress_bar() as notify:
        folder = await fetch_pyodide(parsed.source, notify, parsed.packages)
    print(folder)
