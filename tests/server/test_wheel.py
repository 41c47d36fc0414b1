"""The wheel: what is in it, from a checkout and from an installed package."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

from bascule.cli import main as cli
from bascule.errors import SetupError
from bascule.server.wheel import WEB, write_wheel
from bascule.tasks.registry import first_files

ROOT = Path(__file__).resolve().parent.parent.parent
WEB_FOLDER = ROOT / "web"
KINDS = [
    ".py",
    ".pyi",
    ".typed",
    ".json",
    ".js",
    ".mjs",
    ".LICENSE",
    ".html",
    ".css",
    ".wasm",
    ".wgsl",
    ".md",
    ".zip",
]
IMPORT = re.compile(r"(?:from|import\(|import|new URL\()\s*[\"'](\./[^\"']+)[\"']")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheel(tmp_path_factory.mktemp("dist"))


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.startswith("bascule-")}


def test_it_has_no_c_sources_and_no_demo_pages(wheel: Path) -> None:
    names = names_in(wheel)
    kinds = {PurePosixPath(name).suffix for name in names}
    assert kinds == set(KINDS)
    assert {name for name in names if name.endswith((".html", ".css"))} == {
        "bascule/web/start.html",
        "bascule/web/reports/compatibility.html",
        "bascule/web/reports/debug.html",
        "bascule/web/reports/page.html",
        "bascule/web/reports/performance.html",
        "bascule/web/reports/report.css",
    }
    assert not any(
        part in name
        for name in names
        for part in ("chat.js", "main.js", "engine.js", "marked", "purify")
    )
    assert wheel.stat().st_size < 1_475_000


def test_every_module_that_its_scripts_import_is_there(wheel: Path) -> None:
    names = names_in(wheel)
    scripts = [
        PurePosixPath(n) for n in names if n.startswith("bascule/web/") and n.endswith(".js")
    ]
    assert len(scripts) > 20
    for script in scripts:
        if "vendor" in script.parts:
            continue
        text = (WEB_FOLDER / script.relative_to("bascule/web")).read_text()
        for line in text.splitlines():
            if line.lstrip().startswith(("*", "/**", "//")):
                continue  # types are imported in comments
            for wanted in IMPORT.findall(line):
                assert str(script.parent / wanted) in names, f"{script} imports {wanted}"


def test_it_is_what_the_build_makes(wheel: Path, tmp_path: Path) -> None:
    builder = WheelBuilder(str(ROOT))
    built = next(builder.build(directory=str(tmp_path), versions=["standard"]))
    assert names_in(Path(built)) == names_in(wheel)
    assert all((WEB_FOLDER / name).exists() for name in WEB)


def test_its_record_holds_and_the_same_files_give_the_same_bytes(
    wheel: Path, tmp_path: Path
) -> None:
    with ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert {name for name, *_ in rows} == set(archive.namelist())
        for name, digest, nbytes in rows:
            if name == record:
                continue
            data = archive.read(name)
            result = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, int(nbytes)) == (f"sha256={result}", len(data))
    assert write_wheel(tmp_path).read_bytes() == wheel.read_bytes()
    index = json.loads((tmp_path / "index.json").read_text())
    assert index == {"wheel": wheel.name, "snapshot": None, "ahead": first_files()}


def test_an_installed_package_writes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    code = (
        "import sys; sys.modules['hatchling'] = None\n"
        "import bascule; from pathlib import Path\n"
        "from bascule.server.wheel import write_wheel\n"
        f"assert bascule.__file__.startswith({str(site)!r}), bascule.__file__\n"
        "print(write_wheel(Path('out')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(site), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    again = tmp_path / result.stdout.strip()
    assert again.read_bytes() == wheel.read_bytes()


def test_the_command_and_a_folder_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["wheel", str(tmp_path / "dist")]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="bascule wheel DIR"):
        write_wheel(tmp_path / "file")
