"""Voice activity with Silero's own weights: probabilities and parts as torch has them."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import Progress, SpeechModel
from bascule.audio.voice import SpanRules, speech_spans
from bascule.base.folders import models_folder
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.tasks.voice import VoiceActivityModel
from tests.goldens import HERE
from tests.goldens.voice import RATE, SOUNDS, chord, recording
from tests.tasks.test_reopening import lose_device

FILE = "silero_vad_16k.safetensors"


@pytest.mark.parametrize("tier", ["webgpu", "webgpu-limited", "wasm", "cpu"])
async def test_probabilities_and_parts_are_torchs(tier: str) -> None:
    with np.load(HERE / "voice.npz") as goldens:
        async with await bascule.load("silero-vad", tier=tier) as model:
            for name, sound in SOUNDS.items():
                samples = sound()
                probabilities = await model.probabilities(samples)
                assert probabilities.shape == goldens[name].shape
                off = np.abs(probabilities - goldens[name]).max()
                assert off < 2e-5, (name, off)
                spans = await model.speech_spans(samples)
                found = [(round(RATE * s.start), round(RATE * s.end)) for s in spans]
                assert found == [tuple(row) for row in goldens[f"{name}_spans"].tolist()], name
            assert not model.fallbacks
            assert model.stats["audio_s"] == pytest.approx(
                2 * sum(len(sound()) for sound in SOUNDS.values()) / RATE
            )


async def test_a_file_another_rate_and_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes((models_folder() / "silero-vad" / FILE).read_bytes())
    path = Path(__file__).parents[1] / "recordings" / "bridge.wav"
    samples = recording("bridge")
    doubled = np.repeat(samples, 2)
    reports: list[Progress] = []
    async with await bascule.load(tmp_path, tier="cpu") as model:
        assert isinstance(model, VoiceActivityModel)
        expected = await model.speech_spans(samples)
        assert await model.speech_spans(path, progress=reports.append) == expected
        faster = await model.speech_spans(doubled, sample_rate=2 * RATE)
        assert len(faster) == len(expected)
        for one, other in zip(faster, expected, strict=True):
            assert abs(one.start - other.start) + abs(one.end - other.end) < 0.15
    assert reports[-1].fraction == 1
    assert reports[-1].unit == "ms"
    with pytest.raises(InputError, match="closed"):
        await model.probabilities(samples)


async def test_two_recordings_at_once_keep_their_own_states() -> None:
    sounds = [SOUNDS["music_and_speech"](), np.tile(recording("measure"), 4)]
    async with await bascule.load("silero-vad", tier="wasm") as model:
        alone = [await model.probabilities(sound) for sound in sounds]
        together = await asyncio.gather(*(model.probabilities(sound) for sound in sounds))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


async def test_a_lost_device_is_replaced_in_the_middle() -> None:
    samples = np.tile(recording("measure"), 5)  # two passes
    async with await bascule.load("silero-vad", tier="webgpu") as model:
        expected = await model.probabilities(samples)

        def lose(report: Progress) -> None:
            if report.done < report.total:
                lose_device(model)

        found = await model.probabilities(samples, progress=lose)
        assert np.abs(found - expected).max() < 1e-5
        assert model.stats["revivals"] == 1


async def test_transcribing_skips_what_the_model_hears_no_speech_in() -> None:
    """Music as loud as speech: by energy it is decoded, by the model it is not."""
    samples = np.concatenate([chord(35), recording("measure"), chord(35)])
    async with (
        await bascule.load("silero-vad", tier="cpu") as voice,
        await bascule.load("whisper-tiny.en", tier="cpu", prove=False) as model,
    ):
        assert isinstance(model, SpeechModel)
        said = await model.transcribe(samples, vad_filter=voice)
        alone = await model.transcribe(recording("measure"))
        assert said.text == alone.text
        assert said.stats["windows"] == 1
        assert 34.5 < said.segments[0].start < 35.6
        silent = await model.transcribe(chord(3), vad_filter=voice)
        assert silent.segments == []
        for wrong in (1, "silero-vad", model):
            with pytest.raises(InputError, match="vad_filter"):
                await model.transcribe(samples, vad_filter=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (np.zeros(0, np.float32), {}, "at least one sample"),
        (np.full(9, np.nan, np.float32), {}, "finite"),
        (np.zeros((2, 9), np.float32), {}, "one axis"),
        (np.zeros(9, np.float32), {"threshold": 1.5}, "threshold"),
        (np.zeros(9, np.float32), {"threshold": float("nan")}, "threshold"),
        (np.zeros(9, np.float32), {"speech_pad_ms": -1}, "speech_pad_ms"),
        (np.zeros(9, np.float32), {"min_speech_duration_ms": "long"}, "min_speech_duration_ms"),
    ],
)
async def test_what_cannot_be_is_rejected(given: Any, options: Any, said: str) -> None:
    async with await bascule.load("silero-vad", tier="cpu") as model:
        with pytest.raises(InputError, match=said):
            await model.speech_spans(given, **options)


def _rewritten(path: Path, change: Any) -> None:
    """The file with another header and the same bytes behind it."""
    data = (models_folder() / "silero-vad" / FILE).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])


async def test_other_tensors_and_damaged_files_are_rejected(tmp_path: Path) -> None:
    def renamed(header: dict[str, Any]) -> None:
        header["conv9.weight"] = header.pop("conv1.weight")

    def turned(header: dict[str, Any]) -> None:
        header["lstm_cell.weight_ih"]["shape"] = [128, 512]

    _rewritten(tmp_path / FILE, renamed)
    with pytest.raises(ModelFileError, match=r"lacks the tensor 'conv1.weight' of its layout"):
        await bascule.load(tmp_path, tier="cpu")
    _rewritten(tmp_path / FILE, turned)
    with pytest.raises(ModelFileError, match=r"\[128, 512\], and its layout makes it \[512, 128\]"):
        await bascule.load(tmp_path, tier="cpu")
    _rewritten(tmp_path / FILE, lambda header: header.update(more=header["conv1.bias"]))
    with pytest.raises((UnsupportedModelError, ModelFileError)):
        await bascule.load(tmp_path, tier="cpu")
    whole = (models_folder() / "silero-vad" / FILE).read_bytes()
    for length in (4, 700, len(whole) - 4):
        (tmp_path / FILE).write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            await bascule.load(tmp_path, tier="cpu")
    with pytest.raises(InputError, match="quantize"):
        await bascule.load("silero-vad", tier="cpu", quantize=8)


def test_parts_by_hand() -> None:
    """Windows of one second each."""

    def spans(probabilities: list[float], *rules: float) -> list[tuple[float, float]]:
        found = speech_spans(probabilities, 1.0, len(probabilities), SpanRules(*rules))
        return [(span.start, span.end) for span in found]

    assert spans([]) == []
    assert spans([0.9]) == [(0, 1)]
    assert spans([0.1, 0.6, 0.4, 0.6, 0.1, 0.1], 0.5, 0.2, 0.1, 0.0) == [(1, 4)]  # 0.4 goes on
    assert spans([0.6, 0.3, 0.3, 0.6], 0.5, 0.2, 0.1, 0.0) == [(0, 1), (3, 4)]
    assert spans([0.6, 0.3, 0.3, 0.6], 0.5, 0.2, 3.0, 0.0) == [(0, 4)]  # too short a pause
    assert spans([0.6, 0.0, 0.0, 0.6, 0.6], 0.5, 1.0, 0.1, 0.0) == [(3, 5)]  # too short a part
    assert spans([0.0, 0.6, *[0.0] * 3, 0.6, 0.0, 0.0], 0.5, 0.2, 0.1, 0.75) == [
        (0.25, 2.75),
        (4.25, 6.75),
    ]
    assert spans([0.6, 0.0, 0.0, 0.6], 0.5, 0.2, 0.1, 2.0) == [(0, 2), (2, 4)]  # half each
