"""A user's WGSL source: text, or a file."""

from __future__ import annotations

import re
from os import PathLike, fspath
from pathlib import Path

from bascule.base.arguments import described
from bascule.errors import InputError, SourceError
from bascule.kernels.wgsl_tokens import MAX_CHARACTERS


def source_of(wgsl: str | PathLike[str], name: str) -> tuple[str, str]:
    """Return the text, and the label that names it in errors.

    SourceError for a file that cannot be read, InputError for neither text nor a path.
    """
    if isinstance(wgsl, str):
        return wgsl, label_of(name)
    if not isinstance(wgsl, PathLike):
        expected = "WGSL source as a string, or the path of a file as pathlib.Path"
        raise InputError("kernel", expected, described(wgsl))
    path = Path(fspath(wgsl))
    try:
        with path.open("rb") as file:
            data = file.read(4 * MAX_CHARACTERS + 1)
        return data.decode(), label_of(path.stem)
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give the path of a WGSL file, or its text."
        raise SourceError(str(path), str(error), hint=hint) from None


def label_of(name: str) -> str:
    """Return a label from a name: the page's driver finds the shader of an error by it."""
    stem = name.removesuffix(".wgsl")
    return f"{re.sub(r'[^A-Za-z0-9_/-]+', '_', stem) or 'kernel'}.wgsl"
