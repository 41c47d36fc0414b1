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
    for found in report["findings"]:
        assert found["chosen"] in found["times_ms"]
        assert found["default"] in found["times_ms"]
        assert found["chosen"] == found["default"] or found["gain"] > 1.05
    second = json.loads(tune(tmp_path, "tune", str(TINY_BERT), "--budget", "1", "--json").stdout)
    assert second["known"] == len(report["findings"])
    told = {f["signature"] for f in second["findings"]} & {
        f["signature"] for f in report["findings"]
    }
    assert not told
    expected = golden("tiny-bert")
    found = tune(
        tmp_path, "embed", "--json", "--tier", "webgpu", "--model", str(TINY_BERT), *expected.texts
    )
    assert (cosines(json.loads(found.stdout), expected.embeddings) >= 0.99999).all()


def test_tune_draws_a_table(tmp_path: Path) -> None:
    told = tune(tmp_path, "tune", str(TINY_BERT), "--budget", "2")
    assert told.returncode == 0, told.stderr
    assert "Tuning on" in told.stdout
    assert "kinds of calls measured" in told.stdout
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "1e9"])
def test_a_budget_that_is_none(tmp_path: Path, budget: str) -> None:
    told = tune(tmp_path, "tune", str(TINY_BERT), "--budget", budget)
    assert told.returncode == 1
    assert "--budget" in told.stderr
    assert told.stdout == ""


def test_a_memory_that_cannot_be_written_costs_a_warning_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    expected = golden("tiny-bert")
    told = tune(
        tmp_path / "file" / "x", "embed", "--json", "--tier", "webgpu", "--model", str(TINY_BERT),
        *expected.texts,
    )  # fmt: skip
    assert told.returncode == 0
    assert (cosines(json.loads(told.stdout), expected.embeddings) >= 0.99999).all()
    assert told.stderr.count("RememberedWarning") == 1
