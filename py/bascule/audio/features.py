"""Log-mel features of a recording, computed on a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.audio.mel import N_FRAMES, RATE, STEP, log_mel, mel_tables
from bascule.audio.samples import checked_samples, resample
from bascule.base.arrays import Array, ArrayLike, np
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph

if TYPE_CHECKING:
    from bascule.backend.base import Backend, Executable, WeightStore
    from bascule.program.program import Program


class LogMel:
    """Whisper's features on one backend; `close` frees its tables and memory."""

    def __init__(self, executable: Executable, store: WeightStore, frames: int) -> None:
        self._executable = executable
        self._store = store
        self._n_samples = frames * STEP

    @staticmethod
    def program(bands: int = 80, frames: int = N_FRAMES) -> Program:
        """Return the program that `open` prepares."""
        graph = Graph("log-mel")
        graph.output(log_mel(graph, bands, frames))
        return freeze(graph)

    @classmethod
    async def open(cls, backend: Backend, bands: int = 80, frames: int = N_FRAMES) -> LogMel:
        """Prepare spectra of that many mel bands and frames."""
        program = cls.program(bands, frames)
        store = backend.store(program.parameters)
        try:
            for name, table in mel_tables(bands).items():
                store.write(store.targets[name], 0, np.ascontiguousarray(table, np.float32).data)
            return cls(await backend.prepare(program, store), store, frames)
        except BaseException:
            store.close()
            raise

    async def features(self, samples: ArrayLike, sample_rate: int = RATE) -> Array:
        """Return the log-mel spectrum (bands, F) of at most F frames (30 s), padded with silence.

        Another rate than 16 kHz is resampled. InputError for samples that are empty, too long, not
        finite or not of one channel.
        """
        resampled = resample(checked_samples(samples), sample_rate, RATE)
        if len(resampled) > self._n_samples:
            result = f"{len(resampled) / RATE:.2f} s"
            raise InputError("samples", f"at most {self._n_samples / RATE:g} s", result)
        padded = np.zeros(self._n_samples, np.float32)
        padded[: len(resampled)] = resampled
        (result,) = (await self._executable.run({}, {"samples": padded})).values()
        return result

    def close(self) -> None:
        """Free the tables and the memory between calls."""
        self._executable.close()
        self._store.close()
