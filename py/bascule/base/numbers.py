"""Numbers as people read them."""

from __future__ import annotations


def three_digits(number: float) -> str:
    """At least three significant digits, without a power of ten for what is large: 0.123, 1,234."""
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"
