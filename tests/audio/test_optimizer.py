"""AudioComputeOptimizer: the same spectrum, from the workgroups that were measured as fastest."""

from __future__ import annotations

import numpy as np
import pytest

import bascule
from bascule import AudioComputeOptimizer, InputError
from bascule.audio.features import LogMel

SOUND = np.sin(np.arange(8000) / 11).astype(np.float32)


async def test_the_seeds_example() -> None:
    async with await bascule.open_device("webgpu") as device:
        optimizer = AudioComputeOptimizer("whisper", browser_specific=True, device=device)
        optimizer.optimize_for_current_browser()
        result = await optimizer.process_audio(SOUND)
        report = optimizer.report
        assert report is not None
        measured = {f.signature.split()[0]: f for f in report.findings}
        skipped = {signature.split()[0] for signature in report.skipped}  # no time was left
        assert {"frames", "largest", "linear"} <= {*measured, *skipped}
        for finding in measured.values():
            assert finding.times[finding.chosen] <= finding.times[finding.default]
        if "frames" in measured:
            assert set(measured["frames"].times) == {"frames 64", "frames 256"}
        assert optimizer.gain >= 1.0
        plain = await LogMel.open(device.backend)
        np.testing.assert_allclose(result, await plain.features(SOUND), atol=1e-5)
        plain.close()
        optimizer.close()


async def test_a_tier_without_a_choice() -> None:
    async with await bascule.open_device("cpu") as device:
        optimizer = AudioComputeOptimizer(device=device)
        assert await optimizer.optimize_for_current_browser() == 1.0
        assert (await optimizer.process_audio(SOUND)).shape == (80, 3000)
        with pytest.raises(InputError, match="at least one sample"):
            await optimizer.process_audio(SOUND[:0])
        optimizer.close()
    with pytest.raises(InputError, match=r"model_type.*'audio'"):
        AudioComputeOptimizer("vit")
