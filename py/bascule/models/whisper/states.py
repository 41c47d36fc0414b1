"""The initial contents of the states of Whisper's passes."""

from __future__ import annotations

from array import array

from bascule.models.speech.config import SpeechConfig
from bascule.models.whisper.graph import CROSS_LAST, N_ANGLES, PLACES


def initial_states(config: SpeechConfig) -> dict[str, array[int] | array[float]]:
    """Return the contents of the states that are not all zero, by name."""
    half = config.hidden // config.decoder.heads // 2
    return {
        CROSS_LAST: array("I", [config.encoder.places - 1]),
        PLACES: array("I", range(config.decoder.places)),
        # Cosines 1 and sines 0: rope_append rotates nothing.
        "angles": array("f", ([1.0] * half + [0.0] * half) * N_ANGLES),
    }
