"""Count the lines of py/bascule that the first version's tests enter, in it or at HEAD.

    python tools/lines_of_same_behaviour.py tests FIRST.txt HEAD.txt > tests.txt
    COVERAGE_PROCESS_START=rc pytest @tests.txt; coverage combine; coverage json -o lines.json
    python tools/lines_of_same_behaviour.py count lines.json [--files]

`tests` takes what `pytest tests --collect-only -q` prints in a checkout of the first version and at
HEAD, and prints the tests of HEAD that the first version had: those of the same name, or of another
name with mostly the same words; of a parametrized one the cases that it had, or all where no case
has the same id. Those it misses go to stderr.

`count` counts a module that was imported, without the functions that nothing entered: each with its
docstring, decorators and the blank lines and comments before it. Modules that only run in a page
count whole if they descend from the first version, and the families that came later do not. A test
walks through later features, too, and what it imports has tables of later rows: the sum is an upper
bound.

coverage is not among the dependencies. Its configuration has `parallel = true` and `patch = fork,
_exit`; a sitecustomize.py that calls `coverage.process_startup()` makes it follow workers and other
processes. The tests of tests/webnn_tier run in .venv-webnn.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from lines_of_first_version import FIRST, descendants, git, lines_at

ALIKE = 0.6  # of the words of two tests, for them to be the same one under another name
FAMILIES = ("bert", "decoder", "encoder", "llama")  # the first version's, and what they share

Cases = dict[tuple[str, str], list[str]]  # a test's file and name, the ids of its cases


def cases_in(listing: Path) -> Cases:
    """The tests that pytest has collected, each with its cases: [""] without parameters."""
    result: Cases = defaultdict(list)
    for line in listing.read_text().splitlines():
        path, _, rest = line.partition("::")
        name, bracket, case = rest.partition("[")
        result[path, name].append(bracket + case)
    return result


def words_of(rev: str, test: tuple[str, str]) -> list[str]:
    """The words of a test function's body."""
    path, name = test
    text = "\n".join("\t".join(line) for line in git("show", f"{rev}:{path}"))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return ast.unparse(ast.Module(node.body, [])).split()
    return []


def surviving(before: Cases, now: Cases, first: str) -> Iterator[tuple[str, str, str] | str]:
    """The tests of HEAD that `first` had (file, name, case), and names of those that are gone."""
    names = {name for _, name in before}
    new = {test: words_of("HEAD", test) for test in now if test[1] not in names}
    for test, cases in before.items():
        path, name = test
        same = [other for other in now if other[1] == name]
        same = [other for other in same if Path(other[0]).name == Path(path).name] or same
        if not same:
            words = words_of(first, test)
            scores = {t: SequenceMatcher(None, words, new[t], False).ratio() for t in new}
            best = max(scores, key=scores.__getitem__)
            same = [best] if scores[best] >= ALIKE else []
        if not same:
            yield f"{path}::{name}"
        for other in same:
            both = [case for case in now[other] if case in cases]
            yield from ((*other, case) for case in both or now[other])


def functions(node: ast.AST, end: int) -> Iterator[tuple[int, int, set[int]]]:
    """The functions of a module or class: first and last line, and the lines of their bodies.

    The blank lines and comments before a function are its own; `end` is the line before them all.
    """
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            body = child.body[1:] if ast.get_docstring(child) and child.body[1:] else child.body
            last = child.end_lineno or child.lineno
            yield end + 1, last, set(range(body[0].lineno, last + 1))
        elif isinstance(child, ast.ClassDef | ast.If | ast.Try):
            yield from functions(child, child.lineno)
        end = child.end_lineno or end


@dataclass(frozen=True)
class Lines:
    """The lines of a file that count."""

    functions: int = 0  # that were entered
    around: int = 0  # module level, class headers and fields, of a module with such functions
    imported: int = 0  # the same of a module without
    page: int = 0  # of a module that only runs in a page

    @property
    def total(self) -> int:
        """All of them."""
        return self.functions + self.around + self.imported + self.page


def entered(path: Path, executed: set[int]) -> Lines:
    """What of a file the tests have entered."""
    text = path.read_text()
    spans = list(functions(ast.parse(text), 0))
    around = len(text.splitlines()) - sum(last - first + 1 for first, last, _ in spans)
    ran = sum(last - first + 1 for first, last, body in spans if body & executed)
    return Lines(ran, around) if ran else Lines(imported=around)


def count(measured: Path, root: Path, rev: str, kept: set[str]) -> dict[str, Lines]:
    """Each file's lines that the tests enter; of a page's, all if it is among those `kept`."""
    files = json.loads(measured.read_text())["files"]
    result: dict[str, Lines] = {}
    for path, n_lines in lines_at(rev).items():
        parts = Path(path).parts
        later_family = parts[2] == "models" and len(parts) > 4 and parts[3] not in FAMILIES
        executed = set(files.get(path, {}).get("executed_lines", ()))
        if path.endswith("_browser.py"):
            result[path] = Lines(page=n_lines if path in kept else 0)
        elif executed and not later_family:
            result[path] = entered(root / path, executed)
    return result


def main() -> None:
    """Print the tests, or count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("tests", "count"))
    parser.add_argument(
        "files", nargs="+", type=Path, help="two lists of tests, or coverage's JSON"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout that was measured")
    parser.add_argument("--first", default=FIRST, help="the commit to count from")
    parser.add_argument("--rev", default="HEAD", help="the commit that was measured")
    parser.add_argument("--list", action="store_true", help="list the files, the longest first")
    options = parser.parse_args()
    if options.what == "tests":
        before, now = (cases_in(listing) for listing in options.files)
        tests = list(surviving(before, now, options.first))
        gone = [test for test in tests if isinstance(test, str)]
        print(*("::".join(t[:2]) + t[2] for t in tests if not isinstance(t, str)), sep="\n")
        print(
            f"{len(before)} tests, of which {len(gone)} are gone", *gone, sep="\n", file=sys.stderr
        )
        return
    kept = descendants(options.first, options.rev)
    result = count(options.files[0], options.root, options.rev, kept)
    if options.list:
        for path, lines in sorted(result.items(), key=lambda item: -item[1].total):
            print(f"{lines.total:6,} {path}{'' if path in kept else ' (later)'}")
    for name in ("functions", "around", "imported", "page", "total"):
        lines = {path: getattr(each, name) for path, each in result.items()}
        later = sum(n for path, n in lines.items() if path not in kept)
        print(f"{sum(lines.values()):7,} {name}, {later:,} of them in files that came later")


if __name__ == "__main__":
    main()
