"""The files that a load reads, remembered by the model's address for the page's next visit.

web/ahead.js reads the table before Python is up: then web/prefetch.js requests these files, and
web/early.js opens a GPU device only for a model that will run on it. Sizes and versions are not in
the table: they are in the cache's own entries, which are revalidated as usual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.backend.base import TIERS, Tier, WeightStore
from bascule.base.entries import Remembered
from bascule.weights.pieces import Piece
from bascule.weights.source import Report, Source

# The same values as in web/ahead.js.
LOADS_KEY = "loads"
MAX_LOADS = 16
MAX_FILES = 1024
_FIELDS = ("address", "small", "large", "auto")
_FILE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class FilesRead:
    """The files that a load requested, in order: read whole, or in parts."""

    small: tuple[str, ...]
    large: tuple[str, ...]

    def as_json(self) -> dict[str, list[str]]:
        """Return plain lists."""
        return {"small": list(self.small), "large": list(self.large)}


class RecordedSource:
    """A `Source` that records which files are requested, including missing ones."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read_whole: dict[str, bool] = {}
        self.location = source.location

    @property
    def files(self) -> FilesRead:
        """The files requested so far."""
        small = tuple(file for file, is_whole in self._read_whole.items() if is_whole)
        large = tuple(file for file, is_whole in self._read_whole.items() if not is_whole)
        return FilesRead(small, large)

    @property
    def stats(self) -> Mapping[str, float]:
        return self._source.stats

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        if offset == 0 and nbytes is None:
            self._read_whole.setdefault(file, True)
        else:
            self._read_whole[file] = False
        return await self._source.read(file, offset, nbytes)

    async def size(self, file: str) -> int:
        self._read_whole.setdefault(file, False)
        return await self._source.size(file)

    async def chunk_nbytes(self, file: str) -> int:
        self._read_whole.setdefault(file, False)
        return await self._source.chunk_nbytes(file)

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        self._read_whole[file] = False
        await self._source.stream(file, pieces, store, report)

    async def reread(self, file: str, pieces: Sequence[Piece], store: WeightStore) -> None:
        await self._source.reread(file, pieces, store)

    async def forget(self, file: str) -> None:
        await self._source.forget(file)

    async def settle(self) -> None:
        await self._source.settle()

    def release(self) -> None:
        self._source.release()


async def remember_load(
    remembered: Remembered, address: str, files: FilesRead, auto: Tier | None = None
) -> None:
    """Put a model's files into the table, in place of older ones; drop the least recently loaded
    models.

    `address` is the URL of the model's folder or .gguf file, `auto` the tier that "auto" chose;
    None leaves it unchanged. A model with more files than a row may have is not remembered.
    """
    if len(files.small) + len(files.large) > MAX_FILES:
        return
    before = await _rows(remembered)
    others = [row for row in before if row["address"] != address]
    chosen = auto or next((row["auto"] for row in before if row["address"] == address), "")
    row = {"address": address, **files.as_json(), "auto": chosen}
    await _put(remembered, before, [*others, row][-MAX_LOADS:])


async def forget_loads(remembered: Remembered, is_gone: Callable[[str], bool]) -> None:
    """Drop the models that have lost a file."""
    before = await _rows(remembered)
    await _put(remembered, before, [row for row in before if not any(map(is_gone, _urls(row)))])


async def _put(
    remembered: Remembered, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    """Write changed rows; when the last row of a folder goes, so does its tokenizer."""
    if after == before:
        return
    await remembered.put(LOADS_KEY, {"loads": after})
    for folder in set(map(_folder, before)).difference(map(_folder, after)):
        await remembered.forget(f"tokenizer {folder}")  # as web/bridge/text.js has it


def _folder(row: Mapping[str, Any]) -> str:
    address = str(row["address"])
    return address.rpartition("/")[0] if address.endswith(".gguf") else address


def _urls(row: Mapping[str, Any]) -> list[str]:
    return [f"{_folder(row)}/{file}" for file in (*row["small"], *row["large"])]


async def _rows(remembered: Remembered) -> list[dict[str, Any]]:
    """Return the valid rows of the table, least recently loaded first."""
    stored: Any = (await remembered.get(LOADS_KEY) or {}).get("loads")
    return [row for row in stored if _is_row(row)] if isinstance(stored, list) else []


def _is_row(row: Any) -> bool:
    match row:
        case {"address": str(), "small": list(small), "large": list(large), "auto": str(auto)}:
            names: list[Any] = [*small, *large]
            sound = (isinstance(name, str) and _FILE.fullmatch(name) for name in names)
            known = auto in ("", *TIERS) and len(row) == len(_FIELDS)
            return known and len(names) <= MAX_FILES and all(sound)
        case _:
            return False
