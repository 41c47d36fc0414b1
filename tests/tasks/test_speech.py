"""Transcribing: a tiny random Whisper on every tier, and tiny.en and base on two recordings.

The segments of the real models are those of faster-whisper 1.2 on the same weights in float32 with
beam_size=1 and temperature=0, its windows padded by the spectrum of silence (as OpenAI's are)
instead of by zeros.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import InputError, Progress, SpeechModel
from bascule.audio.recordings import read_recording
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.tasks.transcription import Transcription
from tests import speech_folders as folders

RECORDINGS = Path(__file__).parents[1] / "recordings"
NOISE = np.random.default_rng(3).uniform(-0.5, 0.5, 40_000).astype(np.float32)  # 2.5 s


async def load(folder: Path | str, tier: str = "cpu", **options: Any) -> SpeechModel:
    model = await bascule.load(folder, tier=tier, **options)
    assert isinstance(model, SpeechModel)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.hugging_face(tmp_path_factory.mktemp("speech") / "tiny")


async def test_tiers_and_formats_agree(folder: Path, tmp_path: Path) -> None:
    results: list[Any] = []
    for tier in ("cpu", "wasm", "webgpu"):
        async with await load(folder, tier, cache_dtype="f32") as model:
            assert model.languages == ("en", "de", "fr")
            assert model.tokenizer.decode(model.tokenizer.encode("a b")) == "a b"
            said = await model.transcribe(NOISE, temperatures=0, language="en")
            results.append([(s.start, s.end, s.ids) for s in said.segments])
            assert said.duration == 2.5
            stats = model.stats
            # A window reads whole logits once, for the probability of no speech.
            assert stats["logits_reads"] == stats["windows"] < stats["decoder_steps"] / 4
    assert results[0] == results[1] == results[2] != []
    english = folders.hugging_face(tmp_path / "english", multilingual=False)
    for other in (folders.ctranslate2(tmp_path / "converted"), english):
        async with await load(other) as model:
            assert model.languages == ("en",)
            said = await model.transcribe(NOISE, temperatures=0)
            results.append([s.ids for s in said.segments])
    assert results[3] == results[4] != []


async def test_windows_follow_each_other(folder: Path) -> None:
    reports: list[Progress] = []
    async with await load(folder) as model:
        whole = await model.transcribe(NOISE, temperatures=0, progress=reports.append)
        assert whole.language in model.languages
        code, share = await model.detect_language(NOISE)
        assert code == whole.language
        assert 1 / 3 < share <= 1
        starts = [segment.start for segment in whole.segments]
        assert starts == sorted(starts)
        assert all(0 <= s.start < s.end <= 2.5 + folders.WINDOW_S for s in whole.segments)
        assert (reports[-1].done, reports[-1].total, reports[-1].unit) == (2500, 2500, "ms")
        assert len(reports) == whole.stats["windows"] >= 4
        plain = await model.transcribe(NOISE, temperatures=0, timestamps=False)
        assert plain.stats["windows"] == 4
        assert all(token < folders.END for s in plain.segments for token in s.ids)
        other = await model.transcribe(NOISE, temperatures=0, task="translate", language="de")
        assert other.language == "de"
        assert other.text != whole.text
        each = (whole, plain, other)
        assert model.stats["windows"] == sum(one.stats["windows"] for one in each)


async def test_a_stream_is_left_and_a_task_cancelled(folder: Path) -> None:
    async with await load(folder) as model:
        async with model.stream_transcribe(NOISE, temperatures=0) as stream:
            async for segment in stream:
                first = segment
                break
        assert stream.result.segments[0] == first
        assert model.stats["windows"] < 4
        heard = asyncio.Event()
        work = model.transcribe(NOISE, temperatures=0, progress=lambda _: heard.set())
        task = asyncio.ensure_future(work)
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await model.transcribe(NOISE[:8000], temperatures=0)).segments is not None


async def test_beams_find_likelier_texts_on_every_tier(folder: Path) -> None:
    results: list[Any] = []
    options: Any = {"temperatures": 0, "language": "en", "no_speech_threshold": 1.0}
    for tier in ("cpu", "wasm", "webgpu"):
        async with await load(folder, tier, cache_dtype="f32") as model:
            said = await model.transcribe(NOISE[:13_000], beam_size=3, **options)
            results.append([(s.start, s.end, s.ids) for s in said.segments])
            if tier == "cpu":
                plain = await model.transcribe(NOISE[:13_000], **options)
                best, first = said.segments[0], plain.segments[0]
                assert best.mean_log_probability > first.mean_log_probability
                assert best.no_speech_probability == pytest.approx(first.no_speech_probability)
                timeless = await model.transcribe(NOISE, beam_size=2, timestamps=False, **options)
                assert all(token < folders.END for s in timeless.segments for token in s.ids)
    assert results[0] == results[1] == results[2] != []


async def test_thresholds_act(folder: Path) -> None:
    sound = NOISE[:13_000]
    async with await load(folder) as model:

        async def said(**options: Any) -> Any:
            return await model.transcribe(sound, language="en", **options)

        calm: Any = {"compression_ratio_threshold": 99, "log_probability_threshold": -99}
        first = await said(**calm)
        assert {s.temperature for s in first.segments} == {0.0}
        forced = {"temperatures": (0, 0.7, 1.5), "log_probability_threshold": 0.0}
        drawn = await said(**forced, seed=5, no_speech_threshold=1.0)
        assert {s.temperature for s in drawn.segments} == {1.5}
        again = await said(**forced, seed=5, no_speech_threshold=1.0)
        assert again.segments == drawn.segments
        assert (await said(**forced, seed=6, no_speech_threshold=1.0)).text != drawn.text
        silent = await said(no_speech_threshold=-1.0, log_probability_threshold=0.0)
        assert (silent.segments, silent.stats["windows"]) == ([], 1)


@pytest.mark.parametrize(
    ("audio", "options", "told"),
    [
        (NOISE[:0], {}, "at least one sample"),
        (np.full(10, np.nan, np.float32), {}, "finite numbers.*index 0"),
        (NOISE.reshape(2, -1), {}, "one axis"),
        (NOISE, {"language": "xx"}, "language.*'en', 'de', 'fr'"),
        (NOISE, {"task": "listen"}, "task.*'transcribe'"),
        (NOISE, {"timestamps": "word"}, "timestamps"),
        (NOISE, {"word_timestamps": 1}, "word_timestamps"),
        (NOISE, {"temperatures": ()}, "temperatures"),
        (NOISE, {"temperatures": [0, "warm"]}, "temperatures"),
        (NOISE, {"no_speech_threshold": "low"}, "no_speech_threshold"),
        (NOISE, {"sample_rate": 10}, "sample_rate"),
        (NOISE, {"progress": 3}, "progress"),
        (NOISE, {"beam_size": 0}, "beam_size"),
        (NOISE, {"beam_size": 17}, "beam_size"),
        (NOISE, {"patience": 0.0}, "patience.*above 0"),
        (NOISE, {"length_penalty": "long"}, "length_penalty"),
        (NOISE, {"beams": 3}, "beams"),
    ],
    ids=str,
)
async def test_bad_input(folder: Path, audio: Any, options: dict[str, Any], told: str) -> None:
    async with await load(folder) as model:
        with pytest.raises(InputError, match="(?s)" + told):
            await model.transcribe(audio, **options)


async def test_files_that_lie(tmp_path: Path) -> None:
    folder = folders.ctranslate2(tmp_path / "m")
    file, data = folder / "model.bin", (folder / "model.bin").read_bytes()
    for changed, error in (
        (data[: len(data) // 2], ModelFileError),
        (data + b"more", ModelFileError),
        (b"\x09" + data[1:], UnsupportedModelError),
        (data.replace(b"decoder/layer_1/ffn", b"decoder/layer_7/ffn"), ModelFileError),
    ):
        file.write_bytes(changed)
        with pytest.raises(error, match=r"model\.bin|tensor"):
            await load(folder)
    with pytest.raises(InputError, match="no speech model"):
        await load(folders.hugging_face(tmp_path / "h"), quantize=8)


# Start, end, ids of the text, mean log probability and probability of no speech.
BRIDGE = (
    (0.0, 2.96, " The old bridge opens for the ships in the morning.", -0.439, 0.043),
    (
        2.96,
        7.52,
        " Two leaves rise, and the traffic wait until they come down again.",
        -0.439,
        0.043,
    ),
)
MEASURE = (
    (
        0.0,
        5.44,
        " Please measure the time at one step takes and write the number on the second page.",
        -0.269,
        0.018,
    ),
)


def assert_said(found: Transcription, expected: Any, offset: float = 0.0) -> None:
    assert [s.text for s in found.segments] == [row[2] for row in expected]
    for segment, (start, end, _, mean, silent) in zip(found.segments, expected, strict=True):
        assert (segment.start, segment.end) == (start, end)
        assert segment.mean_log_probability == pytest.approx(mean, abs=2e-3)
        assert segment.no_speech_probability == pytest.approx(silent, abs=2e-3)


# When faster-whisper has the words begin and end, on the same weights and beside the same text.
MEASURE_WORDS = (
    (0.0, 0.46, " Please"), (0.46, 0.76, " measure"), (0.76, 1.1, " the"), (1.1, 1.4, " time"),
    (1.4, 1.7, " at"), (1.7, 2.0, " one"), (2.0, 2.32, " step"), (2.32, 2.8, " takes"),
    (2.8, 3.32, " and"), (3.32, 3.64, " write"), (3.64, 3.82, " the"), (3.82, 4.14, " number"),
    (4.14, 4.36, " on"), (4.36, 4.68, " the"), (4.68, 4.94, " second"), (4.94, 5.4, " page."),
)  # fmt: skip
BRIDGE_WORDS = (
    (0.0, 0.28, " The"), (0.28, 0.6, " old"), (0.6, 0.88, " bridge"), (0.88, 1.32, " opens"),
    (1.32, 1.54, " for"), (1.54, 1.72, " the"), (1.72, 2.0, " ships"), (2.0, 2.32, " in"),
    (2.32, 2.44, " the"), (2.44, 2.96, " morning."), (3.26, 3.54, " Two"), (3.54, 3.84, " leaves"),
    (3.84, 4.34, " rise,"), (4.86, 4.86, " and"), (4.86, 5.04, " the"), (5.04, 5.38, " traffic"),
    (5.38, 5.78, " wait"), (5.78, 6.24, " until"), (6.24, 6.5, " they"), (6.5, 6.8, " come"),
    (6.8, 7.02, " down"), (7.02, 7.42, " again."),
)  # fmt: skip


def assert_timed(found: Transcription, expected: Any) -> None:
    """Nine of ten words within 0.06 s, all within 0.15 s."""
    words = [word for segment in found.segments for word in segment.words]
    assert [word.text for word in words] == [row[2] for row in expected]
    times = np.array([(word.start, word.end) for word in words])
    off = np.abs(times - [row[:2] for row in expected]).max(axis=1)
    print(f"words off by {off.mean():.3f} s on average, {off.max():.2f} s at the most")
    assert (off < 0.061).mean() >= 0.9
    assert off.max() < 0.15


@pytest.mark.parametrize("tier", ["wasm", "cpu"])
async def test_tiny_en_says_what_faster_whisper_does(tier: str) -> None:
    async with await bascule.load("whisper-tiny.en", tier=tier, prove=False) as model:
        said = await model.transcribe(RECORDINGS / "measure.wav", word_timestamps=True)
        assert_said(said, MEASURE)
        assert_timed(said, MEASURE_WORDS)
        if tier == "wasm":
            said = await model.transcribe(RECORDINGS / "bridge.wav", word_timestamps=True)
            assert_said(said, BRIDGE)
            assert_timed(said, BRIDGE_WORDS)
        weights = model.stats["weights_nbytes"]
        assert weights < 1.01 * 4 * 37.8e6
        assert model.stats["peak_chunk_nbytes"] <= 3 << 22


async def test_pauses_are_skipped() -> None:
    """A sentence behind 35 s of silence: one window instead of two, at the recording's times."""
    spoken = await read_recording(RECORDINGS / "measure.wav", 16_000)
    pause = np.zeros(35 * 16_000, np.float32)
    samples = np.concatenate([pause, spoken.samples, pause])
    reports: list[Progress] = []
    async with await load("whisper-tiny.en", "cpu", prove=False) as model:
        said = await model.transcribe(samples, vad_filter=True, progress=reports.append)
        assert [s.text for s in said.segments] == [row[2] for row in MEASURE]
        assert said.stats["windows"] == 1
        assert 34.5 < said.segments[0].start < 35.6
        assert (reports[-1].fraction, said.duration) == (1.0, pytest.approx(len(samples) / 16_000))
        silent = await model.transcribe(pause, vad_filter=True, progress=reports.append)
        assert (silent.segments, silent.language, reports[-1].fraction) == ([], "en", 1.0)
        assert "windows" not in silent.stats
        with pytest.raises(InputError, match="vad_filter"):
            await model.transcribe(pause, vad_filter=1)


async def test_beams_of_tiny_en_say_what_those_of_faster_whisper_do() -> None:
    """With float16 caches "waits" becomes "wait": log probabilities of both differ by 0.0004."""
    expected = {
        "bridge": (
            0.0,
            7.5,
            " The old bridge opens for the ships in the morning, two leaves rise, and the traffic "
            "waits until they come down again.",
            -0.398,
            0.043,
        ),
        "measure": MEASURE[0],
    }
    async with await bascule.load(
        "whisper-tiny.en", tier="wasm", prove=False, cache_dtype="f32"
    ) as model:
        for name, row in expected.items():
            assert_said(await model.transcribe(RECORDINGS / f"{name}.wav", beam_size=5), (row,))


async def test_base_finds_the_language() -> None:
    async with await bascule.load("whisper-base", tier="wasm", prove=False) as model:
        assert len(model.languages) == 99
        result = await model.transcribe(RECORDINGS / "bridge.wav")
        assert result.language == "en"
        assert_said(
            result,
            (
                (0.0, 3.0, BRIDGE[0][2], -0.457, 0.031),
                (
                    3.0,
                    7.5,
                    " To leave fries and the traffic weight until they come down again.",
                    -0.457,
                    0.031,
                ),
            ),
        )
