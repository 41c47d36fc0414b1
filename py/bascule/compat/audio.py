"""AudioComputeOptimizer: the log-mel front end of speech models, tuned for its device."""

from __future__ import annotations

from typing import Any

from bascule.audio.features import LogMel
from bascule.audio.mel import RATE
from bascule.audio.recordings import read_recording
from bascule.backend.tuning import TuneReport
from bascule.base.arguments import one_of
from bascule.base.arrays import Array, need_numpy
from bascule.base.waiting import start
from bascule.compat.own_device import OwnDevice
from bascule.device.device import Device
from bascule.models.family import SpeechFamily
from bascule.models.table import FAMILIES

_BUDGET_S = 10.0


class AudioComputeOptimizer:
    """Computes log-mel spectra on `device`, or on one that is opened at first use.

    `model_type` is that of a speech model, or "audio". With `browser_specific` the workgroup sizes
    of its kernels (256x1x1 among them) are measured on this device, whatever the browser, and the
    fastest are used; `report` has the measurements and `gain` the total speedup. Close it to free
    the device's memory.
    """

    def __init__(
        self,
        model_type: str = "audio",
        browser_specific: bool = True,
        *,
        device: Device | None = None,
        bands: int = 80,
    ) -> None:
        types = [t for f in FAMILIES if isinstance(f, SpeechFamily) for t in f.model_types]
        self.model_type = one_of("model_type", model_type, (*types, "audio"))
        self.browser_specific = browser_specific
        self.report: TuneReport | None = None
        self._bands = bands
        self._device = OwnDevice(device)
        self._features: LogMel | None = None
        self._optimizing: Any = None

    def optimize_for_current_browser(self) -> Any:
        """Measure the kernels' workgroup sizes on this device; return the gain, 1.0 without a
        choice.

        Returns an awaitable if an event loop is running, for which `process_audio` waits itself,
        and runs to completion otherwise. TierUnavailableError if no device opens.
        """
        self._optimizing = start(self._optimize())
        return self._optimizing

    async def process_audio(self, audio_data: Any, sample_rate: int = RATE) -> Array:
        """Return the log-mel spectrum (bands, 3000) of at most 30 s of a recording.

        `audio_data` is what `SpeechModel.transcribe` takes; errors as there.
        """
        await need_numpy("process_audio()", "Load numpy into this Pyodide.")
        if self._optimizing is not None and not isinstance(self._optimizing, float):
            await self._optimizing
        result = await read_recording(audio_data, sample_rate)
        device = await self._device.get()
        async with device.backend.turns.turn():
            if self._features is None:
                self._features = await LogMel.open(device.backend, self._bands)
            return await self._features.features(result.samples, result.rate)

    @property
    def gain(self) -> float:
        """The speedup of the measured kernels over the defaults."""
        findings = self.report.findings if self.report is not None else []
        before = sum(f.count * f.times[f.default] for f in findings)
        after = sum(f.count * f.times[f.chosen] for f in findings)
        return before / after if after else 1.0

    def close(self) -> None:
        """Free what is on the device, and the device if it was opened here."""
        if self._features is not None:
            self._features.close()
            self._features = None
        self._device.close()

    async def _optimize(self) -> float:
        if self.browser_specific:
            device = await self._device.get()
            async with device.backend.turns.turn():
                program = LogMel.program(self._bands)
                self.report = await device.backend.tune([program], budget_s=_BUDGET_S)
                if self._features is not None:  # what is prepared stays as it is
                    self._features.close()
                    self._features = None
        return self.gain
