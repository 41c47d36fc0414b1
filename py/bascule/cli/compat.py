"""`bascule compat`: what runs on this machine, what does not, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bascule.errors import InputError


def add_compat_arguments(parser: argparse.ArgumentParser) -> None:
    """What `compat` takes."""
    parser.add_argument("--collect-all", action="store_true", help="packages, hardware, memory")
    parser.add_argument("--matrix", action="store_true", help="families of models by tiers")
    parser.add_argument("--test-hardware", action="store_true", help="compute on each tier")
    parser.add_argument("--check-model", metavar="NAME", help="name, folder or URL of a model")
    parser.add_argument(
        "--format", default="markdown", choices=("markdown", "json", "html"), help="(%(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there")


async def compat(parsed: argparse.Namespace) -> None:
    """Report what runs on this machine, what does not, and what to do.

    All is collected where nothing is asked for. The exit code is 1 where the model that is asked
    for runs on no tier here.
    """
    text, runs = await asyncio.to_thread(_collected, parsed)
    if parsed.output is None:
        print(text)
    else:
        try:
            parsed.output.write_text(text, "utf-8")
        except OSError as error:
            result = f"{parsed.output} ({error.strerror})"
            expected = "a file that can be written"
            raise InputError("compat --output", expected, result) from None
    if not runs:
        raise SystemExit(1)


def _collected(parsed: argparse.Namespace) -> tuple[str, bool]:
    """The report, and whether the model that is asked for runs here."""
    from bascule.observe.compatibility import HardwareCompatibilityReporter, render

    reporter = HardwareCompatibilityReporter()
    model: str | None = parsed.check_model
    alone = not (parsed.matrix or parsed.test_hardware or model is not None)
    if parsed.collect_all or alone:
        reporter.check_components()
        reporter.collect_hardware_detection_errors()
        reporter.collect_resource_pool_errors()
    if parsed.test_hardware:
        reporter.test_full_hardware_stack()
    runs = True
    if model is not None:
        result = reporter.collect_model_integration_errors(model)
        runs = any(finding.error == "compatible" for finding in result)
    return render(reporter.as_json(matrix=parsed.matrix), parsed.format), runs
