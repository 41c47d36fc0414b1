"""The command line as its user meets it: real processes, exit codes, words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from bascule.server.run import listen
from tests.cli.running import run
from tests.goldens import TINY_BERT, cosines, golden
from tests.weights.faulty import FaultyServer


def embed(*arguments: str, stdin: str = "") -> CompletedProcess[str]:
    return run("embed", "--model", str(TINY_BERT), *arguments, stdin=stdin)


@pytest.mark.parametrize("tier", ["auto", "webgpu", "cpu"])
def test_embed_prints_json_and_nothing_else(tier: str) -> None:
    expected = golden("tiny-bert")
    output = embed("--json", "--tier", tier, *expected.texts)
    assert output.returncode == 0
    assert output.stderr == ""
    result = json.loads(output.stdout)
    assert (cosines(result, expected.embeddings) >= 0.99999).all()


def test_embed_reads_lines_and_draws_a_table() -> None:
    result = embed("--tier", "cpu", stdin="w4 w5\nw6\n")
    assert result.returncode == 0
    assert "w4 w5" in result.stdout
    assert "1.000" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["embed", "--model", "all-MiniLM-L7", "x"], 1, ["all-MiniLM-L6-v2"]),
        (["embed", "--model", "/no/such", "x"], 1, ["no such folder"]),
        (["embed", "--model", "ftp://x/y", "x"], 1, ["http"]),
        (["embed", "--model", str(TINY_BERT), "--tier", "webnn", "x"], 1, ["webnn", "auto"]),
        (["embed", "--model", str(TINY_BERT)], 1, ["at least one text"]),
        (["embed", "--tier", "quantum", "x"], 2, ["quantum"]),
        (["pull", "all-MiniLM"], 1, ["all-MiniLM-L6-v2"]),
        (["serve", "--port", "70000"], 1, ["65535"]),
        (["serve", "--port", "many"], 2, ["many"]),
        ([], 2, ["usage"]),
        (["fly"], 2, ["fly"]),
    ],
)
def test_mistakes_are_told_in_words(arguments: list[str], code: int, words: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("command", ["pull", "embed", "tune", "serve", "doctor"])
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"Example: bascule {command}" in result.stdout


def test_doctor_reports_a_device_that_computes() -> None:
    result = run("doctor", "--json")
    assert result.returncode == 0
    report = json.loads(result.stdout)
    tiers = {row["tier"]: row for row in report["tiers"]}
    assert tiers["webgpu"]["works"]
    assert tiers["cpu"]["works"]
    assert tiers["wasm"]["works"]
    assert tiers["wasm"]["reason"]
    assert report["adapters"][0]["limits"]["maxBufferSize"] > 0
    shown = run("doctor").stdout
    assert "webgpu" in shown
    for decision in report["decisions"]:
        able = [c for c in decision["considered"] if not c["refused"]]
        assert [c["tier"] for c in able] == ["webgpu", "wasm", "cpu"]
        assert decision["chosen"] == min(able, key=lambda c: c["expected_ms"])["tier"]
        assert decision["subject"] in shown
    assert ("software" in report["warning"]) == report["adapters"][0]["software"]
    assert ("Warning" in shown) == bool(report["warning"])


def test_doctor_reports_switches_that_leave_no_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_FORCE_WEBNN", "1")
    result = run("doctor", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert {decision["chosen"] for decision in report["decisions"]} == {None}
    reasons = [c["refused"] for c in report["decisions"][0]["considered"] if c["tier"] != "webnn"]
    assert all("BASCULE_FORCE_WEBNN" in reason for reason in reasons)
    assert "nothing" in run("doctor").stdout


def test_a_taken_port() -> None:
    with listen(0) as taken:
        result = run("serve", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 1
    assert "--port 0" in result.stderr


def test_serve_answers_and_stops_on_interrupt() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "bascule", "serve", "--port", str(port)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert f"http://localhost:{port}/" in process.stderr.readline()
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/") as answer:
                assert b"Bascule" in answer.read()
            break
        except OSError:
            time.sleep(0.1)
    else:
        pytest.fail("the server never answered")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) in (0, 130)
    assert "Traceback" not in process.stderr.read()


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = (
        f"{sys.executable} -m bascule embed --json --tier cpu --model {TINY_BERT} w4 | head -c 1"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout == "["
    assert "Traceback" not in result.stderr


def test_embeddings_of_both_tiers_agree() -> None:
    results = [json.loads(embed("--json", "--tier", t, "w4 w9").stdout) for t in ("webgpu", "cpu")]
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_manifest_and_cache(tmp_path: Path) -> None:
    shutil.copytree(TINY_BERT, tmp_path / "m")
    result = run("manifest", str(tmp_path / "m"), "--chunk-mb", "0.0625")
    assert result.returncode == 0, result.stderr
    manifest = json.loads(Path(result.stdout.strip()).read_text())
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert len(manifest["files"]["model.safetensors"]["chunks"]) == 2

    with FaultyServer(tmp_path) as server:
        url = f"{server.url}/m"
        texts = ["--json", "--tier", "cpu", "w4 w5"]
        first = run("embed", "--model", url, *texts)
        assert first.returncode == 0, first.stderr
        kept = json.loads(run("cache", "ls", "--json").stdout)
        names = {k["location"] for k in kept if k["kind"] == "fetched"}
        assert f"{url}/model.safetensors" in names
        assert "model.safetensors" in run("cache", "ls").stdout.replace("\n", "")
        assert "No file in the cache is damaged" in run("cache", "verify").stdout
        server.down()
        assert run("embed", "--model", url, *texts).stdout == first.stdout
        large = max(Path(os.environ["BASCULE_WEIGHTS"], "chunks").rglob("*"), key=size_of)
        large.write_bytes(b"spoilt")
        damaged = json.loads(run("cache", "verify", "--json").stdout)
        assert damaged == {f"{url}/model.safetensors": 1}
        result = run("embed", "--model", url, *texts)
        assert result.returncode == 1
        assert "connection failed" in result.stderr
        assert "bytes 0 to 65,535" in result.stderr
        server.up()
        assert run("embed", "--model", url, *texts).stdout == first.stdout
        result = run("cache", "rm", url)
        assert result.stdout.strip() == "4 removed"
        assert not [p for p in Path(os.environ["BASCULE_WEIGHTS"]).rglob("*") if len(p.name) == 64]


def test_a_manifest_of_gguf_files(tmp_path: Path) -> None:
    for name in ("model.gguf", "other.Q8_0.gguf", "notes.txt"):
        (tmp_path / name).write_bytes(bytes(100_000))
    result = run("manifest", str(tmp_path), "--chunk-mb", "0.0625")
    manifest = json.loads(Path(result.stdout.strip()).read_text())
    assert set(manifest["files"]) == {"model.gguf", "other.Q8_0.gguf"}
    assert len(manifest["files"]["model.gguf"]["chunks"]) == 2


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cache", "rm"), "a location, or everything"),
        (("cache", "rm", "no-such-model"), "bascule cache ls"),
        (("cache", "ls", "x"), "no locations"),
        (("manifest", "no-such-folder"), "a folder with a model's files"),
        (("manifest", str(TINY_BERT), "--chunk-mb", "0"), "64 KiB to 64 MiB"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.returncode == 1
    assert said in result.stderr


def test_pull_runs_no_code_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model folder may bring a huggingface_hub.py."""
    for name in ("huggingface_hub", "httpx"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w').write('{name}')"
        )
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", "")
    command = [str(Path(sys.executable).parent / "bascule"), "pull", "all-MiniLM-L6-v2"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert "HF_HUB_OFFLINE is set" in result.stderr
    assert not (tmp_path / "ran").exists()
