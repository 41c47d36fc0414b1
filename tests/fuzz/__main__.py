"""The command line of the fuzzer; see __init__.py."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.runner import fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="|".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=None, help="for each target")
    parser.add_argument("--cases", type=int, default=None, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    result = 0
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no target {min(unknown)}")
    for target in options.targets or TARGETS:
        report = fuzz(target, options.seed, options.first, options.cases, options.seconds)
        print(report, flush=True)
        result += len(report.findings)
    return 1 if result else 0


if __name__ == "__main__":
    sys.exit(main())
