"""Run the Array API's own test suite on bascule.array.

    .venv/bin/python tools/array_api.py FOLDER [cpu webgpu wasm] [--max-examples 20]

FOLDER is a checkout of array-api-tests with its submodule; pip install ndindex and
pytest-json-report beside the set-up. Known failures are listed, each with its reason,
in tests/array/array-api-fails.txt.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAILS = ROOT / "tests" / "array" / "array-api-fails.txt"


def main() -> int:
    """Run each tier in a process of its own; the exit status is the worst one."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tiers", nargs="*", default=["cpu", "webgpu", "wasm"])
    parser.add_argument("--max-examples", default="20")
    parser.add_argument("--tests", default="array_api_tests", help="a part of the suite")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    known, more = parser.parse_known_args()
    if known.inside:
        return _inside(known.tests, known.max_examples, more)
    worst = 0
    for tier in known.tiers:
        script = f"import bascule.array as xp; xp.set_default_device({tier!r})".replace("'", '"')
        env = {
            **os.environ,
            "ARRAY_API_TESTS_MODULE": f"exec('{script}')",
            "ARRAY_API_TESTS_VERSION": "2025.12",
            "ARRAY_API_TESTS_MAX_ARRAY_SIZE": "256",
            "ARRAY_API_TESTS_SKIP_DTYPES": "float64,complex64,complex128",
        }
        options = ["--inside", "--tests", known.tests, "--max-examples", known.max_examples]
        print(f"array-api-tests on {tier}:", flush=True)
        done = subprocess.run(
            [sys.executable, __file__, *options, ".", *more], cwd=known.folder, env=env, check=False
        )
        worst = max(worst, done.returncode)
    return worst


def known_fails() -> dict[str, str]:
    """The tests that are known to fail, and the reason of each."""
    lines = [line for line in FAILS.read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    return {test: why for test, _, why in (line.partition("  # ") for line in lines)}


def _inside(tests: str, max_examples: str, more: list[str]) -> int:
    sys.path[:0] = [os.getcwd()]
    import pytest

    _load_without_complex()
    known = Path(tempfile.mkdtemp()) / "fails.txt"  # the suite's own format has no reasons
    known.write_text("".join(f"{test}\n" for test in known_fails()), "utf-8")
    return pytest.main(
        [
            tests,
            *more,
            f"--max-examples={max_examples}",
            "--disable-deadline",
            "--xfails-file",
            str(known),
            "-q",
            "-W",
            "ignore",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:rerunfailures",
        ],
        plugins=[_WithoutComplex()],
    )


class _WithoutComplex:
    """Deselects special cases of complex numbers, of which arrays have none."""

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """See above."""
        gone = [item for item in items if _is_complex(item)]
        items[:] = [item for item in items if not _is_complex(item)]
        config.hook.pytest_deselected(items=gone)


def _is_complex(item: Any) -> bool:
    callspec = getattr(item, "callspec", None)
    return bool(callspec and getattr(callspec.params.get("case"), "is_complex", False))


def _load_without_complex() -> None:
    """The suite takes the widest complex dtype of a namespace: of none it is None."""
    name = "array_api_tests.dtype_helpers"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    def widest(*given: Any, **options: Any) -> Any:
        if len(given) == 1 and not isinstance(given[0], int) and not list(given[0]):
            return (None, 0)
        return builtins.max(*given, **options)

    vars(module)["max"] = widest
    sys.modules[name] = module
    xp: Any = importlib.import_module("bascule.array")
    vars(xp)["float64"] = None  # it names this one, and skips it (ARRAY_API_TESTS_SKIP_DTYPES)
    spec.loader.exec_module(module)
    module.dtype_to_name._key_value_pairs.append((None, "complex64"))  # what it calls that None
    del vars(module)["max"], vars(xp)["float64"]


if __name__ == "__main__":
    sys.exit(main())
