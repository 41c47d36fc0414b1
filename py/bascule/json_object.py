"""A model folder's JSON files, none of which is trusted."""

from __future__ import annotations

import json
from typing import Any

from bascule.errors import ModelFileError


def json_object(data: bytes, file: str) -> dict[str, Any]:
    """The object that a file holds; ModelFileError if it holds anything else."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise ModelFileError(file, "it is not JSON") from None
    if not isinstance(found, dict):
        raise ModelFileError(file, "it is not a JSON object")
    return found
