"""Word timestamps: the path through the attention, words of tokens, and what punctuation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import ModelFileError
from bascule.models.speech.config import SpeechConfig, StackConfig
from bascule.tasks.speech_aligner import read_heads
from bascule.tasks.speech_alignment import first_columns, smoothed, warping_path
from bascule.tasks.speech_words import (
    Timed,
    give_words,
    split_words,
    typical_duration,
    with_punctuation,
    without_pauses,
)
from bascule.tasks.transcription import Segment
from tests import speech_folders as folders

NOISE = np.random.default_rng(3).uniform(-0.5, 0.5, 40_000).astype(np.float32)


def slow_path(cost: np.ndarray) -> tuple[float, list[tuple[int, int]]]:
    """The cheapest path, cell by cell."""
    n, m = cost.shape
    best: dict[tuple[int, int], tuple[float, list[tuple[int, int]]]] = {(0, 0): (0.0, [])}
    for i in range(n):
        for j in range(m):
            ways = [best[at] for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if at in best]
            total, path = min(ways, default=(0.0, []))
            best[i, j] = total + cost[i, j], [*path, (i, j)]
    return best[n - 1, m - 1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (6, 1), (4, 13), (12, 5), (17, 17)])
def test_the_path_is_the_cheapest(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(sum(shape)).standard_normal(shape)
    rows, columns = warping_path(cost)
    total, path = slow_path(cost)
    assert cost[rows, columns].sum() == pytest.approx(total)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == path
    firsts = [min(j for i, j in path if i == row) for row in range(shape[0])]
    assert first_columns(cost).tolist() == firsts


def test_weights_are_normalized_over_tokens_and_smoothed_over_time() -> None:
    weights = np.random.default_rng(2).random((3, 5, 20))
    expected = np.zeros((5, 20))
    for head in weights:
        normal = (head - head.mean(0)) / head.std(0)
        for token in range(5):
            mirrored = [*normal[token, 3:0:-1], *normal[token], *normal[token, -2:-5:-1]]
            medians = [sorted(mirrored[at : at + 7])[3] for at in range(20)]
            expected[token] += np.array(medians) / 3
    np.testing.assert_allclose(smoothed(weights), expected)
    assert np.isfinite(smoothed(np.ones((1, 4, 2)))).all()  # alike everywhere, and short


def test_tokens_form_words() -> None:
    texts = dict(enumerate([" It", "'s", " na", "ï", "ve", ",", ' "', "yes", '"', "."]))
    raw = {at: text.encode() for at, text in texts.items()} | {3: b"\xc3", 10: b"\xaf"}

    def decode(ids: Any) -> str:
        return b"".join(raw[at] for at in ids).decode("utf-8", "replace")

    ids = [0, 1, 2, 3, 10, 4, 5, 6, 7, 8, 9]
    words = split_words(ids, decode, "en")
    assert words == [
        (" It's", 2), (" naïve", 4), (",", 1), (' "yes', 2), ('"', 1), (".", 1),
    ]  # fmt: skip
    assert split_words(ids, decode, "ja")[:4] == [(" It", 1), ("'s", 1), (" na", 1), ("ï", 2)]
    assert split_words([3], decode, "en") == [("\ufffd", 1)]
    timed = [Timed(text, n, at, at + 1, 0.5) for at, (text, n) in enumerate(words)]
    joined = [(w.text, w.n_tokens, w.start) for w in with_punctuation(timed) if w.text]
    assert joined == [(" It's", 2, 0), (" naïve,", 5, 1), (' "yes".', 4, 3)]
    apart = [Timed(text, 1, at, at + 1, 0.5) for at, text in enumerate((" a", " (", " b", ")"))]
    joined = [(w.text, w.n_tokens, w.start) for w in with_punctuation(apart) if w.text]
    assert joined == [(" a", 1, 0), (" ( b)", 3, 2)]


def test_no_word_takes_in_a_pause() -> None:
    words = [Timed(f" w{at}", 1, 0.4 * at, 0.4 * at + 0.4, 1.0) for at in range(5)]
    words += [Timed(".", 1, 2.0, 5.0, 1.0), Timed(" late", 1, 5.0, 8.0, 1.0)]
    typical = typical_duration(words)
    assert typical == pytest.approx(0.4)
    result = without_pauses(words, typical)
    assert [w.end for w in result[5:]] == pytest.approx([2.8, 8.0])
    assert result[6].start == pytest.approx(7.2)
    assert typical_duration([]) == typical_duration([Timed(" a", 1, 2.0, 2.0, 1.0)]) == 0
    # At the ends of a segment they keep to its own times.
    segment = Segment(14.0, 15.2, "", (1, 2, 3), 0, 0, 1, 0)
    times = ((0.0, 4.4), (4.4, 4.8), (4.8, 8.0))
    wide = [Timed(f" w{at}", 1, *span, 1.0) for at, span in enumerate(times)]
    (given,) = give_words([segment], wide, 99, 10.0, 10.0)
    assert [(w.start, w.end) for w in given.words] == [(13.7, 14.4), (14.4, 14.8), (14.8, 15.5)]


CONFIG = SpeechConfig(10, 8, 4, StackConfig(2, 2, 8, 8), StackConfig(5, 2, 8, 8))


def test_heads_of_settings_and_without() -> None:
    assert read_heads({}, CONFIG, "m") == {2: (0, 1), 3: (0, 1), 4: (0, 1)}
    listed = {"alignment_heads": [[4, 1], [1, 0], [4, 0]]}
    assert read_heads(listed, CONFIG, "m") == {1: (0,), 4: (0, 1)}
    for wrong in ([], "x", [[5, 0]], [[0, 2]], [[0]], [[True, 0]], [[-1, 0]], [3], {"a": 1}):
        with pytest.raises(ModelFileError, match="its alignment_heads are not pairs"):
            read_heads({"alignment_heads": wrong}, CONFIG, "m")


async def test_tiers_give_the_same_words(tmp_path: Path) -> None:
    folder = folders.hugging_face(tmp_path / "tiny")
    results: list[Any] = []
    for tier in ("cpu", "wasm", "webgpu"):
        async with await bascule.load(folder, tier=tier, cache_dtype="f32") as model:
            options: Any = {"temperatures": 0, "language": "en", "no_speech_threshold": 1.0}
            plain = await model.transcribe(NOISE, **options)
            said = await model.transcribe(NOISE, word_timestamps=True, **options)
        assert [s.text for s in said.segments] == [s.text for s in plain.segments] != []
        words = [word for segment in said.segments for word in segment.words]
        assert "".join(w.text for w in words) == "".join(s.text for s in said.segments)
        starts = [word.start for word in words]
        assert len(words) > 1
        assert starts == sorted(starts)
        assert all(0 <= w.start <= w.end <= 2.5 + folders.WINDOW_S for w in words)
        assert all(0 < w.probability <= 1 for w in words)
        results.append([(w.start, w.end, w.text) for w in words])
        assert said.segments[0].as_json()["words"][0]["text"] == words[0].text
        assert "words" not in plain.segments[0].as_json()
    assert results[0] == results[1] == results[2]
