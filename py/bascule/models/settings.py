"""Checked values of a model's settings: a config.json, or the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from bascule.base.arguments import is_number
from bascule.errors import ModelFileError, UnsupportedModelError

_LARGEST = 1 << 24
MAX_LAYERS = 1000


class Settings:
    """Reads settings by name. A null setting counts as absent.

    ModelFileError for an impossible value, UnsupportedModelError for an unsupported one.
    """

    def __init__(self, settings: Mapping[str, Any], file: str) -> None:
        self._settings = {key: value for key, value in settings.items() if value is not None}
        self.file = file

    def __contains__(self, key: str) -> bool:
        return key in self._settings

    def size(self, key: str, default: int | None = None, largest: int = _LARGEST) -> int:
        """Return an integer from 1 to `largest`."""
        return self.integer(key, default, 1, largest)

    def integer(self, key: str, default: int | None, minimum: int, maximum: int = _LARGEST) -> int:
        """Return an integer from `minimum` to `maximum`."""
        value = self._settings.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            expected = f"expected a whole number {minimum} to {maximum:,}"
            raise ModelFileError(self.file, f"{key} is {str(value)[:40]}, {expected}")
        return value

    def number(self, key: str, default: float, minimum: float, maximum: float) -> float:
        """Return a finite number from `minimum` to `maximum`."""
        value = self._settings.get(key, default)
        if not is_number(value):
            problem = f"{key} is {str(value)[:40]}, expected a number"
            raise ModelFileError(self.file, problem)
        if not (isfinite(value) and minimum <= value <= maximum):
            raise ModelFileError(self.file, f"{key} is {value}, expected {minimum} to {maximum}")
        return float(value)

    def expect(self, plain: Mapping[str, Any]) -> None:
        """Reject the first setting whose value is not the supported one, by name."""
        for key, expected in plain.items():
            if self._settings.get(key, expected) != expected:
                problem = f"its {key} is {str(self._settings[key])[:40]}"
                raise UnsupportedModelError(self.file, problem)
