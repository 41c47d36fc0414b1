"""Where Bascule keeps things on a native machine."""

from __future__ import annotations

import os
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
