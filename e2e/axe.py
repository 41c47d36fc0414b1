"""axe-core in a page, in each way that a person may look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.engines import Page, PlaywrightTab

AXE = Path(__file__).resolve().parent.parent / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
ZOOMED = {"width": 640, "height": 450}  # what a zoom of 200% leaves of the desktop
MODES: dict[str, dict[str, Any]] = {
    "desktop": {"size": DESKTOP},
    "phone": {"size": PHONE},
    "200%": {"size": ZOOMED},
    "dark": {"size": DESKTOP, "color_scheme": "dark"},
    "forced colours": {"size": PHONE, "forced_colors": "active"},
    "forced colours, dark": {"size": DESKTOP, "color_scheme": "dark", "forced_colors": "active"},
}
_FIND = """async (source) => {
  if (!globalThis.axe) await new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, { src: source, onload: resolve, onerror: reject });
    document.head.append(script);
  });
  // A button that fades in as it is enabled has little contrast until it has done so.
  const ends = (animation) => animation.effect.getComputedTiming().endTime < Infinity;
  await Promise.allSettled(document.getAnimations().filter(ends).map(({ finished }) => finished));
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}"""
# What is wider than the window, and what is too small for a finger; links in a sentence may be.
_SIZES = """() => {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("scrolls sideways");
  for (const each of document.querySelectorAll("button, select, summary, nav a, textarea")) {
    const { width, height } = each.getBoundingClientRect();
    const small = each.checkVisibility() && Math.min(width, height) < 44;
    if (small) found.push(`small: ${each.outerHTML}`);
  }
  return found;
}"""


def emulate(page: Page, *, size: dict[str, int], **media: str) -> None:
    """Look at a page in another way; only Playwright's browsers can."""
    assert isinstance(page, PlaywrightTab)
    page.page.set_viewport_size({"width": size["width"], "height": size["height"]})
    usual: dict[str, Any] = {"color_scheme": "light", "forced_colors": "none"}
    chosen: dict[str, Any] = {**usual, **media}
    page.page.emulate_media(**chosen)


def defects_now(page: Page, extra: Path) -> list[str]:
    """What axe-core, small targets and sideways scrolling show in the page as it is.

    `extra` is the folder that the site serves as /extra.
    """
    (extra / "axe.js").write_bytes(AXE.read_bytes())
    return [*page.run(_FIND, "/extra/axe.js"), *page.run(_SIZES)]


def defects(page: Page, extra: Path, modes: tuple[str, ...] = tuple(MODES)) -> list[str]:
    """Those in each mode; only Playwright's browsers can show them all."""
    results: list[str] = []
    for mode in modes:
        emulate(page, **MODES[mode])
        results += [f"{mode}: {defect}" for defect in defects_now(page, extra)]
    emulate(page, **MODES["desktop"])
    return results
