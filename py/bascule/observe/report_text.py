"""A compatibility report as Markdown and as a page."""

from __future__ import annotations

from typing import Any

from bascule.observe.visualization import filled


def as_markdown(report: dict[str, Any]) -> str:
    """Format the record of `HardwareCompatibilityReporter.as_json` for people."""
    counts = ", ".join(f"{n} {severity}" for severity, n in report["counts"].items())
    lines = ["# Hardware compatibility", "", f"Bascule {report['version']}: {counts}.", ""]
    for finding in report["findings"]:
        lines.append(f"## {finding['severity'].title()}: {finding['component']}")
        lines += ["", finding["message"], ""]
        lines += [f"- {advice}" for advice in finding["recommendations"]]
        lines += [""] if finding["recommendations"] else []
    if report["hardware"]:
        rows = [
            (h["name"], _yes_no(h["present"]), _memory(h["memory_nbytes"]), h["source"])
            for h in report["hardware"]
        ]
        lines += _table(("hardware", "present", "memory", "source"), rows)
    if report["tiers"]:
        rows = [(t["tier"], _yes_no(t["works"]), t["reason"]) for t in report["tiers"]]
        lines += _table(("tier", "works", "device or reason"), rows)
    if matrix := report.get("matrix"):
        tiers = tuple(next(iter(matrix.values())))
        rows = [
            (family, *(f"{row[t]['level']} ({row[t]['basis']})" for t in tiers))
            for family, row in matrix.items()
        ]
        lines += _table(("family", *tiers), rows)
    return "\n".join(lines)


def as_html(report: dict[str, Any]) -> str:
    """The same as one self-contained page."""
    return filled("compatibility.html", "Hardware compatibility", report)


def _yes_no(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def _memory(nbytes: int | None) -> str:
    return "unknown" if nbytes is None else f"{nbytes / (1 << 20):,.0f} MiB"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [_row(head), _row(("---",) * len(head))]
    return [*lines, *map(_row, rows), ""]


def _row(cells: tuple[str, ...]) -> str:
    plain = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(plain)} |"
