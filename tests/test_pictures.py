"""What the console page shows as a picture."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from bascule.page.pictures import figures, picture_of


class Drawn:
    def __init__(self, **methods: Any) -> None:
        for name, value in methods.items():
            setattr(self, name, lambda value=value: value)


def test_the_display_protocol() -> None:
    assert picture_of(Drawn(_repr_png_=b"png")) == ("image/png", b"png")
    assert picture_of(Drawn(_repr_svg_="<svg/>")) == ("image/svg+xml", b"<svg/>")
    assert picture_of(Drawn(_repr_png_=None, _repr_svg_="<svg/>")) == ("image/svg+xml", b"<svg/>")
    assert picture_of(Drawn(_repr_png_=b"")) is None
    for plain in (3, "text", None, Drawn, Drawn(_repr_png_=7)):
        assert picture_of(plain) is None


def test_a_picture_that_fails_is_none() -> None:
    class Broken:
        def _repr_png_(self) -> bytes:
            raise ValueError("no")

    assert picture_of(Broken()) is None


def test_figures_of_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    nothing: dict[str, ModuleType] = {}
    assert list(figures(nothing)) == []
    import matplotlib.pyplot as plt

    plt.close("all")
    for n in range(2):
        plt.figure()
        plt.plot([n, 1])
    drawn = list(figures(sys.modules))
    assert [data[:4] for data in drawn] == [b"\x89PNG", b"\x89PNG"]
    assert plt.get_fignums() == []
