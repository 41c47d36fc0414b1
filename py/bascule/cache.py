"""What is kept of models on this machine (in a page: in this origin): list, remove, verify."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bascule.errors import InputError
from bascule.folders import open_regular

IN_PAGE = sys.platform == "emscripten"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was fetched by URL, or a known model that was pulled.

    `stored_nbytes` is less than `nbytes` where a load has not ended; `used` in seconds since 1970.
    """

    location: str
    kind: Literal["fetched", "pulled"]
    nbytes: int
    stored_nbytes: int
    used: float
    in_use: bool


async def ls() -> list[Kept]:
    """Everything that is kept, the least recently used first."""
    if IN_PAGE:
        return _from_page(await (await _page()).entries())
    return await asyncio.to_thread(_native_ls)


async def rm(locations: Sequence[str] = (), *, everything: bool = False) -> int:
    """Remove files and models by location (a folder's URL takes all below it); how many went.

    InputError for a location of which nothing is kept, or for none without `everything`.
    """
    if not locations and not everything:
        raise InputError("cache rm", "a location, or everything", "neither")
    if IN_PAGE:
        fetcher = await _page()
        return int(await fetcher.remove(json.dumps([] if everything else list(locations))))
    return await asyncio.to_thread(_native_rm, list(locations), everything)


async def verify() -> dict[str, int]:
    """Hash all that is kept; damaged chunks (files of pulled models) by location.

    Damaged chunks are dropped, and fetched again when they are needed.
    """
    if IN_PAGE:
        return dict(json.loads(await (await _page()).verify()))
    return await asyncio.to_thread(_native_verify)


async def warnings() -> list[str]:
    """In a page, what was not kept and why; natively such things are Python's own warnings."""
    return list((await _page()).warnings.to_py()) if IN_PAGE else []


async def _page() -> Any:
    from bascule.weights.source_browser import page_fetcher

    return await page_fetcher()


def _from_page(told: str) -> list[Kept]:
    return [
        Kept(
            each["location"],
            "fetched",
            each["nbytes"],
            each["stored_nbytes"],
            each["used"] / 1000,
            each["in_use"],
        )
        for each in json.loads(told)
    ]


def _native_ls() -> list[Kept]:
    from bascule.weights.journal import Journal

    found = [
        Kept(
            each.entry.url,
            "fetched",
            each.entry.nbytes,
            each.stored_nbytes,
            each.used,
            each.in_use,
        )
        for each in Journal().entries()
        if not each.entry.missing
    ]
    for folder in _pulled():
        sizes = [file.stat() for file in folder.rglob("*") if file.is_file()]
        nbytes = sum(stat.st_size for stat in sizes)
        used = max((stat.st_atime for stat in sizes), default=0.0)
        found.append(Kept(folder.name, "pulled", nbytes, nbytes, used, in_use=False))
    return sorted(found, key=lambda kept: kept.used)


def _pulled() -> list[Path]:
    from bascule.folders import models_folder
    from bascule.model.registry import KNOWN

    return [models_folder() / name for name in KNOWN if (models_folder() / name).is_dir()]


def _native_rm(locations: list[str], everything: bool) -> int:
    from bascule.weights.journal import Journal

    journal = Journal()
    gone = 0
    if everything:
        locations = [folder.name for folder in _pulled()]
        journal_keys = [each.key for each in journal.entries()]
        gone = sum(not each.entry.missing for each in journal.entries())
        journal.remove(journal_keys)
    for location in locations:
        wanted = location.rstrip("/")
        folders = [folder for folder in _pulled() if folder.name == wanted]
        listed = [
            each
            for each in journal.entries()
            if each.entry.url == wanted or each.entry.url.startswith(wanted + "/")
        ]
        if not folders and not listed:
            raise InputError(
                "cache rm",
                "what `bascule cache ls` lists",
                repr(location),
                hint="Nothing else went.",
            )
        for folder in folders:
            shutil.rmtree(folder)
        journal.remove([each.key for each in listed])
        gone += len(folders) + sum(not each.entry.missing for each in listed)
    return gone


def _native_verify() -> dict[str, int]:
    from bascule.model.registry import KNOWN
    from bascule.weights.journal import Journal

    journal = Journal()
    damaged: dict[str, int] = {}
    for each in journal.entries():
        # chunk() itself drops what does not have its name's hash.
        bad = sum(journal.has_chunk(h) and journal.chunk(h) is None for h in each.entry.hashes)
        if bad:
            damaged[each.entry.url] = bad
    for folder in _pulled():
        bad = sum(
            _digest(folder / file) != wanted for file, wanted in KNOWN[folder.name].files.items()
        )
        if bad:
            damaged[folder.name] = bad
    return damaged


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""
