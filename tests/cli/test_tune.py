"""`bascule tune` as its user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli.running import run
from tests.goldens import TINY_BERT, cosines, golden


def tune(memory: Path, *arguments: str) -> CompletedProcess[str]:
    return run(*arguments, BASCULE_REMEMBERED=str(memory))


def test_tune_measures_remembers_and_is_not_asked_twice(tmp_path: Path) -> None:
    # Too little for all, so that the second one has something left to measure.
    first = tune(tmp_path, "tune", str(TINY_BERT), "--budget", "3", "--json")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    report = json.loads(first.stdout)
    assert report["known"] == 0
    assert report["wrong"] == []
    assert report["findings"]
    for result in report["findings"]:
        assert result["chosen"] in result["times_ms"]
        assert result["default"] in result["times_ms"]
        assert result["chosen"] == result["default"] or result["gain"] > 1.05
    second = json.loads(tune(tmp_path, "tune", str(TINY_BERT), "--budget", "1", "--json").stdout)
    assert second["known"] == len(report["findings"])
    output = {f["signature"] for f in second["findings"]} & {
        f["signature"] for f in report["findings"]
    }
    assert not output
    expected = golden("tiny-bert")
    result = tune(
        tmp_path, "embed", "--json", "--tier", "webgpu", "--model", str(TINY_BERT), *expected.texts
    )
    assert (cosines(json.loads(result.stdout), expected.embeddings) >= 0.99999).all()


def test_tune_draws_a_table(tmp_path: Path) -> None:
    result = tune(tmp_path, "tune", str(TINY_BERT), "--budget", "2")
    assert result.returncode == 0, result.stderr
    assert "Tuning on" in result.stdout
    assert "kinds of calls measured" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "1e9"])
def test_a_budget_that_is_none(tmp_path: Path, budget: str) -> None:
    result = tune(tmp_path, "tune", str(TINY_BERT), "--budget", budget)
    assert result.returncode == 1
    assert "--budget" in result.stderr
    assert result.stdout == ""


def test_a_memory_that_cannot_be_written_costs_a_warning_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    expected = golden("tiny-bert")
    result = tune(
        tmp_path / "file" / "x", "embed", "--json", "--tier", "webgpu", "--model", str(TINY_BERT),
        *expected.texts,
    )  # fmt: skip
    assert result.returncode == 0
    assert (cosines(json.loads(result.stdout), expected.embeddings) >= 0.99999).all()
    assert result.stderr.count("RememberedWarning") == 1
