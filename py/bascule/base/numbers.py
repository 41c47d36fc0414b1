"""Numbers formatted for people."""

from __future__ import annotations


def three_digits(number: float) -> str:
    """Format three or more significant digits, without an exponent if large: 0.123, 1,234."""
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"
