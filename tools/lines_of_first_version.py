"""Print the lines of the first version's code, and those of the files that descend from it.

    .venv/bin/python tools/lines_of_first_version.py [--first e85f404] [--rev HEAD] [--files]

Counts the .py files of py/bascule. A file descends from the first version if git follows it back to
one of its files, through renames and copies. `--files` lists the descendants, the longest first.
"""

from __future__ import annotations

import argparse
import subprocess

FIRST = "e85f404"
FILES = ("--", "py/bascule/*.py")
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def git(*arguments: str) -> list[list[str]]:
    """The lines that a git command prints, split at tabs."""
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return [line.split("\t") for line in done.stdout.splitlines() if line]


def lines_at(rev: str) -> dict[str, int]:
    """The files of a commit, each with its number of lines."""
    rows = git("diff", "--numstat", EMPTY_TREE, rev, *FILES)
    return {path: int(added) for added, _, path in rows}


def descendants(first: str, rev: str) -> set[str]:
    """The files of `rev` that descend from those of `first`."""
    history = ("log", "--reverse", "--format=", f"{first}..{rev}")
    result = set(lines_at(first))
    for status, path, *after in git(*history, "--name-status", "-M", "-C", "-l0", *FILES):
        if path not in result:
            continue
        if status[0] in "DR":
            result.remove(path)
        result.update(after)
    return result


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--first", default=FIRST, help="the commit to count from")
    parser.add_argument("--rev", default="HEAD", help="the commit to count at")
    parser.add_argument("--files", action="store_true", help="list the files")
    options = parser.parse_args()
    before, now = lines_at(options.first), lines_at(options.rev)
    kept = {path: now[path] for path in descendants(options.first, options.rev)}
    if options.files:
        for path, lines in sorted(kept.items(), key=lambda item: -item[1]):
            print(f"{lines:6,} {path}")
    print(f"{options.first}: {sum(before.values()):,} lines in {len(before)} files")
    print(f"{options.rev}: {sum(now.values()):,} lines in {len(now)} files")
    print(f"descendants: {sum(kept.values()):,} lines in {len(kept)} files")


if __name__ == "__main__":
    main()
