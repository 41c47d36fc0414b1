"""bascule-manifest.json: the SHA-256 of every chunk of a model folder's files.

    {"version": 1, "chunk_nbytes": 4194304,
     "files": {"model.safetensors": {"nbytes": 90868376, "sha256": "...", "chunks": ["..."]}}}

With it each chunk is verified before use, no file is revalidated with the server, and a chunk that
another model has cached is not fetched again. It lists all files that a load may read: a file that
it does not list counts as missing, and is not requested. web/bridge/manifest.js reads it in a page.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from bascule.base.folders import file_nbytes, open_regular, write_whole
from bascule.base.json_object import MANIFEST as MANIFEST_LIMITS
from bascule.base.json_object import JsonFault, parse_json
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import InputError, ModelFileError, SetupError
from bascule.weights.names import MANIFEST, model_files

MAX_MANIFEST_NBYTES = MANIFEST_LIMITS.nbytes
MIN_CHUNK_NBYTES = 65536
MAX_CHUNK_NBYTES = 64 << 20
_HASH = re.compile(r"[0-9a-f]{64}")


_HINT = "Write it again (`bascule manifest FOLDER`), or remove it to load without verification."


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A file's entry in a manifest."""

    nbytes: int
    sha256: str
    chunk_nbytes: int
    hashes: tuple[str, ...]


def check_chunk_nbytes(nbytes: int) -> int:
    """Return a valid chunk size; InputError for any other."""
    if not MIN_CHUNK_NBYTES <= nbytes <= MAX_CHUNK_NBYTES:
        raise InputError("chunk size", "64 KiB to 64 MiB", f"{nbytes:,} bytes")
    return nbytes


def parse_manifest(data: bytes, place: str) -> dict[str, ManifestEntry]:
    """Parse a manifest into entries by file name; ModelFileError if it is truncated or invalid."""
    try:
        fields: Any = parse_json(data, MANIFEST_LIMITS)
    except JsonFault as fault:
        problem = f"it is damaged or truncated ({fault})"
        raise ModelFileError(place, problem, hint=_HINT) from None
    if not isinstance(fields, dict) or fields.get("version") != 1:
        raise ModelFileError(place, "it is not a manifest of version 1")
    chunk, files = fields.get("chunk_nbytes"), fields.get("files")
    if not is_count(chunk) or not MIN_CHUNK_NBYTES <= chunk <= MAX_CHUNK_NBYTES:
        raise ModelFileError(place, "its chunk_nbytes is not 64 KiB to 64 MiB")
    if not isinstance(files, dict):
        raise ModelFileError(place, "it names no files")
    return {name: _expected(name, entry, chunk, place) for name, entry in files.items()}


def is_manifest(data: bytes) -> bool:
    """Whether a response may be a manifest: many servers send a web page for a missing file."""
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _expected(name: str, entry: Any, chunk: int, place: str) -> ManifestEntry:
    fault = ModelFileError(place, f"its entry for {name[:80]!r} is invalid")
    if not isinstance(entry, dict):
        raise fault
    nbytes, digest, chunks = entry.get("nbytes"), entry.get("sha256"), entry.get("chunks")
    if not is_count(nbytes) or not _is_hash(digest) or not isinstance(chunks, list):
        raise fault
    if len(chunks) != -(-nbytes // chunk) or not all(_is_hash(c) for c in chunks):
        raise fault
    return ManifestEntry(nbytes, digest, chunk, tuple(chunks))


def is_count(value: Any) -> TypeGuard[int]:
    """Whether JSON gave a count that a float can hold; JSON's true is an int to Python."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_hash(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def make_manifest(
    folder: Path, files: Mapping[str, Path], chunk_nbytes: int, notify: Callable[[int], None]
) -> bytes:
    """Build the manifest of these files (name to path); `notify` gets the bytes read so far."""
    check_chunk_nbytes(chunk_nbytes)
    if not files:
        raise InputError("manifest", "a folder with a model's files", str(folder))
    fields: dict[str, Any] = {}
    done = 0
    for name in sorted(files):
        digest, chunks, nbytes = hashlib.sha256(), list[str](), 0
        with open_regular(files[name]) as handle:
            while chunk := handle.read(chunk_nbytes):
                digest.update(chunk)
                chunks.append(hashlib.sha256(chunk).hexdigest())
                nbytes += len(chunk)
                done += len(chunk)
                notify(done)
        fields[name] = {"nbytes": nbytes, "sha256": digest.hexdigest(), "chunks": chunks}
    document = {"version": 1, "chunk_nbytes": chunk_nbytes, "files": fields}
    return (json.dumps(document, indent=1) + "\n").encode()


async def write_manifest(folder: Path, chunk_mb: float, progress: ProgressCallback) -> Path:
    """Write a model folder's manifest into it.

    InputError for a folder without model files, SetupError if it cannot be read or written.
    """

    def report(done: int) -> None:
        progress(Progress("manifest", done, total))

    chunk_nbytes = round(chunk_mb * (1 << 20))
    target = folder / MANIFEST
    try:
        files = model_files(folder)
        total = sum(file_nbytes(path) for path in files.values())
        data = await asyncio.to_thread(make_manifest, folder, files, chunk_nbytes, report)
        write_whole(target, data, mode=0o666)  # a server of another user has to read it
    except OSError as error:
        raise SetupError(
            f"{target} cannot be written ({error.strerror or error}).", hint="Is the folder yours?"
        ) from None
    return target
