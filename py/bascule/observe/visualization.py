"""A report as one HTML page: web/reports/page.html around the report's own part and its data."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from bascule.base import assets
from bascule.observe.performance import PerformanceReport

# For longer profiles the page shows the longest spans; the numbers by kernel include all.
_MAX_SPANS = 20_000
_MAX_SAMPLES = 4_000
_MARKS = re.compile(r"<!--title-->|<!--body-->|/\*style\*/|/\*data\*/")


def performance_page(report: PerformanceReport) -> str:
    """Return the page's HTML."""
    numbers = report.as_json()
    work, memory = numbers["work"], numbers["memory"]
    if len(work) > _MAX_SPANS:
        longest = sorted(work, key=lambda span: span["seconds"], reverse=True)[:_MAX_SPANS]
        numbers["work"] = sorted(longest, key=lambda span: span["start_s"])
    numbers["n_work"] = len(work)
    numbers["memory"] = memory[:: -(-len(memory) // _MAX_SAMPLES) or 1]
    title = f"Performance on {report.tier} ({report.device})"
    return filled("performance.html", title, numbers)


def filled(template: str, title: str, numbers: dict[str, Any]) -> str:
    """Return the page that reports share, with a title, the `template`'s part and its numbers."""
    data = json.dumps(numbers, allow_nan=False)
    # In a script element only "<" could end it.
    data = data.replace("<", "\\u003c")
    page = assets.text("web/reports/page.html")
    parts = {
        "<!--title-->": escape(title),
        "<!--body-->": assets.text(f"web/reports/{template}"),
        "/*style*/": assets.text("web/reports/report.css"),
        "/*data*/": data,
    }
    return _MARKS.sub(lambda mark: parts[mark[0]], page)
