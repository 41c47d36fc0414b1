"""A debugger's trace as one HTML page: web/reports/debug.html with the numbers inside."""

from __future__ import annotations

from dataclasses import asdict

from bascule.observe.roofline import ShaderPerformance
from bascule.observe.shader_trace import ShaderTrace
from bascule.observe.visualization import filled


def debug_page(trace: ShaderTrace, performance: ShaderPerformance | None) -> str:
    """The page's HTML."""
    numbers = trace.as_json()
    numbers["performance"] = None if performance is None else asdict(performance)
    title = f"Shaders on {trace.tier} ({trace.device})"
    return filled("debug.html", title, numbers)
