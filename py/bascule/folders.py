"""Where Bascule keeps things on a native machine."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """BASCULE_CACHE, else the user's cache folder for bascule. Not made by this call."""
    told = os.environ.get("BASCULE_CACHE")
    if told:
        return Path(told).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("bascule"))


def models_folder() -> Path:
    """A folder a model."""
    return cache_folder() / "models"


def remembered_folder() -> Path:
    """BASCULE_REMEMBERED, else a folder of the cache folder: what was learned of this machine."""
    told = os.environ.get("BASCULE_REMEMBERED")
    return Path(told).expanduser() if told else cache_folder() / "remembered"


def weights_folder() -> Path:
    """BASCULE_WEIGHTS, else a folder of the cache folder: what was fetched from servers."""
    told = os.environ.get("BASCULE_WEIGHTS")
    return Path(told).expanduser() if told else cache_folder() / "weights"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place, then renamed into it. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as sink:
            sink.write(data)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
