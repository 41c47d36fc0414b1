"""List, remove and verify cached models on this machine, or in a page of this origin."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bascule.base.folders import unusable
from bascule.base.page_settings import IN_PAGE
from bascule.errors import InputError

# Prefix of the location of a saved `Index`.
INDEX_PREFIX = "bascule-index:"
_SERVER = re.compile(r"https?://[^/]")


# The listing's name of what killed processes left: unreferenced chunks and partial files.
ORPHANED = "orphaned chunks"


@dataclass(frozen=True, slots=True)
class CachedItem:
    """A file fetched by URL, a pulled model, or all orphaned chunks together.

    In a page also a snapshot of Python that this browser has made, and a saved `Index`.
    `stored_nbytes` is less than `nbytes` after an unfinished load; `used` is in seconds since 1970.
    """

    location: str
    kind: Literal["fetched", "pulled", "orphaned", "snapshot", "index"]
    nbytes: int
    stored_nbytes: int
    used: float
    in_use: bool


async def ls() -> list[CachedItem]:
    """List everything that is cached, least recently used first."""
    if IN_PAGE:
        fetcher = await _page()
        return _from_page(await fetcher.entries(), int(await fetcher.orphanedNbytes()))
    with _usable():
        return await asyncio.to_thread(_native_ls)


async def rm(locations: Sequence[str] = (), *, everything: bool = False) -> int:
    """Remove files and models by location; return how many.

    A URL removes the file, or all files below it. With `everything` orphaned chunks go as well.
    SetupError if the cache folder cannot be used, InputError for a location that is not cached, or
    for no location without `everything`.
    """
    if not locations and not everything:
        raise InputError("cache rm", "a location, or everything", "neither")
    if IN_PAGE:
        fetcher = await _page()
        orphaned = everything or ORPHANED in locations
        gone = int(await fetcher.removeOrphans()) if orphaned else 0
        urls = [location for location in locations if location != ORPHANED]
        if everything or urls:  # an empty list stands for all
            gone += int(await fetcher.remove(json.dumps([] if everything else urls)))
            await _forget_loads([] if everything else urls)
        return gone
    with _usable():
        return await asyncio.to_thread(_native_rm, list(locations), everything)


async def verify() -> dict[str, int]:
    """Verify the hashes of everything; return the number of damaged chunks or files by location.

    Damaged chunks are deleted, and fetched again when needed. SetupError.
    """
    if IN_PAGE:
        return dict(json.loads(await (await _page()).verify()))
    with _usable():
        return await asyncio.to_thread(_native_verify)


async def warnings() -> list[str]:
    """In a page, what could not be cached and why; natively these are Python warnings."""
    return list((await _page()).warnings.to_py()) if IN_PAGE else []


async def _page() -> Any:
    from bascule.weights.source_browser import page_fetcher

    return await page_fetcher()


async def _forget_loads(locations: Sequence[str]) -> None:
    """Stop prefetching files that were removed; without locations, all of them."""
    from bascule.base.remembered import open_remembered
    from bascule.weights.recorded import forget_loads

    def is_gone(url: str) -> bool:
        return not locations or any(is_below(url, location) for location in locations)

    await forget_loads(await open_remembered(), is_gone)


def _from_page(listing: str, orphaned_nbytes: int) -> list[CachedItem]:
    orphaned = CachedItem(ORPHANED, "orphaned", orphaned_nbytes, orphaned_nbytes, 0.0, in_use=False)
    results = [
        CachedItem(
            each["location"],
            each["kind"],
            each["nbytes"],
            each["stored_nbytes"],
            each["used"] / 1000,
            each["in_use"],
        )
        for each in json.loads(listing)
    ]
    return [orphaned, *results] if orphaned_nbytes else results


@contextmanager
def _usable() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(error) from None


def _native_ls() -> list[CachedItem]:
    from bascule.weights.journal import Journal

    journal = Journal()
    results = [
        CachedItem(
            each.entry.url,
            "index" if each.entry.url.startswith(INDEX_PREFIX) else "fetched",
            each.entry.nbytes,
            each.stored_nbytes,
            each.used,
            each.in_use,
        )
        for each in journal.entries()
        if not each.entry.missing
    ]
    if orphans := [path.stat() for path in journal.orphans()]:
        nbytes = sum(stat.st_size for stat in orphans)
        used = max(stat.st_mtime for stat in orphans)
        results.append(CachedItem(ORPHANED, "orphaned", nbytes, nbytes, used, in_use=False))
    for name, folder in _pulled().items():
        sizes = [file.stat() for file in folder.rglob("*") if file.is_file()]
        nbytes = sum(stat.st_size for stat in sizes)
        used = max((stat.st_atime for stat in sizes), default=0.0)
        results.append(CachedItem(name, "pulled", nbytes, nbytes, used, in_use=False))
    return sorted(results, key=lambda kept: kept.used)


def _pulled() -> dict[str, Path]:
    """Return pulled models by name or hub id."""
    from bascule.base.folders import models_folder
    from bascule.tasks.hub_repo import pulled_repos
    from bascule.tasks.registry import KNOWN

    known = {name: models_folder() / name for name in KNOWN}
    return {name: folder for name, folder in known.items() if folder.is_dir()} | pulled_repos()


def _native_rm(locations: list[str], everything: bool) -> int:
    from bascule.weights.journal import Journal

    journal = Journal()
    pulled = _pulled()
    if everything:
        entries = journal.entries()
        journal.remove([each.key for each in entries])
        for folder in pulled.values():
            shutil.rmtree(folder)
        fetched = sum(not each.entry.missing for each in entries)
        return fetched + journal.drop_orphans() + len(pulled)
    entries, orphaned = [], False
    folders: set[Path] = set()
    for location in locations:  # all are looked up before anything is removed
        below = [each for each in journal.entries() if is_below(each.entry.url, location)]
        folder = pulled.get(location.rstrip("/"))
        is_orphans = location == ORPHANED and bool(journal.orphans())
        if not (below or folder or is_orphans):
            expected = "what `bascule cache ls` lists"
            raise InputError("cache rm", expected, repr(location), hint="Nothing was removed.")
        entries += below
        folders |= {folder} if folder else set()
        orphaned |= is_orphans
    for folder in folders:
        shutil.rmtree(folder)
    journal.remove([each.key for each in entries])
    fetched = len({each.key for each in entries if not each.entry.missing})
    return fetched + len(folders) + (journal.drop_orphans() if orphaned else 0)


def is_below(url: str, location: str) -> bool:
    """Whether a location is this URL, a folder above it, or its server."""
    wanted = location.rstrip("/")
    if _SERVER.match(wanted) is None:
        return url == location  # an index that was saved
    return url == wanted or url.startswith(wanted + "/")


def _native_verify() -> dict[str, int]:
    from bascule.tasks.hub_repo import damaged_files, sha256_of
    from bascule.tasks.registry import KNOWN
    from bascule.weights.journal import Journal

    journal = Journal()
    damaged: dict[str, int] = {}
    for each in journal.entries():
        # chunk() deletes a chunk that does not match its name.
        bad = sum(journal.has_chunk(h) and journal.chunk(h) is None for h in each.entry.hashes)
        if bad:
            damaged[each.entry.url] = bad
    for name, folder in _pulled().items():
        if name in KNOWN:
            hashes = KNOWN[name].files.items()
            bad = sum(sha256_of(folder / file) != wanted for file, wanted in hashes)
        else:
            bad = len(damaged_files(folder))
        if bad:
            damaged[name] = bad
    if orphaned := journal.drop_orphans():
        damaged[ORPHANED] = orphaned
    return damaged
