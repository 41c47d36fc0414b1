"""Pictures of Python values: what IPython's display protocol and matplotlib give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from types import ModuleType
from typing import Any


def picture_of(value: Any) -> tuple[str, bytes] | None:
    """The type and the bytes of a value's picture (`_repr_png_`, `_repr_svg_`), if it has one.

    A class is no value, and a method that fails or gives nothing is no picture.
    """
    if isinstance(value, type):
        return None
    for method, mime in (("_repr_png_", "image/png"), ("_repr_svg_", "image/svg+xml")):
        draw = getattr(value, method, None)
        try:
            data = draw() if callable(draw) else None
        except Exception:  # IPython, too, tries the next form
            continue
        if isinstance(data, str):
            data = data.encode("utf-8")
        if isinstance(data, bytes) and data:
            return mime, data
    return None


def figures(modules: Mapping[str, ModuleType]) -> Iterator[bytes]:
    """PNG files of matplotlib's open figures, which are closed; none where it is not imported."""
    plots: Any = modules.get("matplotlib.pyplot")
    for number in plots.get_fignums() if plots else ():
        figure = plots.figure(number)
        target = BytesIO()
        figure.savefig(target, format="png", bbox_inches="tight")
        plots.close(figure)
        yield target.getvalue()
