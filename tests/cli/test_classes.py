"""`bascule rank` and `bascule classify` as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.running import run
from tests.goldens import TINY_BERT
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, QUERY, SINGLES, classifier_golden
from tests.goldens.families import build

BY_NAME = {case.name: case for case in CLASSIFIERS}
CROSS = "a cross-encoder of bert"
CPU = ("--tier", "cpu")


def test_rank_prints_the_best_first(tmp_path: Path) -> None:
    folder = str(build(BY_NAME[CROSS], tmp_path / "m"))
    scores = classifier_golden(CROSS)["scores"][: len(ANSWERS)]
    result = run("rank", QUERY, *ANSWERS, "--model", folder, *CPU, "--json", "--best", "3")
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert [row["index"] for row in rows] == list(np.argsort(-scores, kind="stable")[:3])
    assert [row["text"] for row in rows] == [ANSWERS[row["index"]] for row in rows]
    assert np.abs([row["score"] - scores[row["index"]] for row in rows]).max() < 1e-4
    table = run("rank", QUERY, "--model", folder, *CPU, stdin="w4 w5\nw6\n").stdout
    assert "w4 w5" in table


def test_classify_prints_labels(tmp_path: Path) -> None:
    folder = str(build(BY_NAME[CROSS], tmp_path / "m"))
    texts = [text for text in SINGLES if text][:2]
    result = run("classify", *texts, "--model", folder, *CPU, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert [row["text"] for row in rows] == texts
    assert all(row["probabilities"][row["label"]] == row["probability"] for row in rows)
    assert rows[0]["label"] in run("classify", texts[0], "--model", folder, *CPU).stdout


def test_models_of_other_kinds_are_told() -> None:
    for command in (("rank", "a query"), ("classify",)):
        result = run(*command, "a text", "--model", str(TINY_BERT), *CPU)
        assert result.returncode == 1
        assert "it ranks and classifies no texts" in result.stderr
        assert "bascule embed" in result.stderr
        nothing = run(*command, "--model", str(TINY_BERT), *CPU)
        assert "at least one text" in nothing.stderr
