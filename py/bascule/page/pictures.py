"""Pictures of Python values: IPython's display protocol and matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from types import ModuleType
from typing import Any


def picture_of(value: Any) -> tuple[str, bytes] | None:
    """Return the type and bytes of a value's picture (`_repr_png_`, `_repr_svg_`), if it has one.

    A class has no picture, nor does a value whose method fails or returns None.
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
    """Yield PNG files of matplotlib's open figures, and close them; none if it is not imported."""
    plots: Any = modules.get("matplotlib.pyplot")
    for number in plots.get_fignums() if plots else ():
        figure = plots.figure(number)
        target = BytesIO()
        figure.savefig(target, format="png", bbox_inches="tight")
        plots.close(figure)
        yield target.getvalue()
