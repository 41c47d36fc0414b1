"""The steps of a speech model's decoder on its device: a token in, logits or a token out."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from time import perf_counter

from bascule.backend.base import Executable, StateStore
from bascule.base.arrays import Array, np
from bascule.errors import NotFiniteError
from bascule.tasks.speech_rules import AllowedTokens

# Names of the counters in `SpeechModel.stats`, and of the stages of a window.
COUNTERS = ("decoder_steps", "logits_reads")
STAGES = ("features_ms", "encoder_ms", "prompt_ms", "decode_ms", "rules_ms")


@dataclass(slots=True)
class DecoderSteps:
    """Decodes one token at a time over the caches of one window; `totals` counts what it does.

    `logits_of` ends in logits that the host reads, `choice` in the op allowed_token. `not_finite`
    makes the error for logits after a token that are not finite.
    """

    logits_of: Executable
    choice: Executable
    states: StateStore
    not_finite: Callable[[str], NotFiniteError]
    totals: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            (*COUNTERS, "prompt_ms", "decode_ms", "rules_ms"), 0.0
        )
    )
    # Token and position in the device's states.
    _placed: tuple[int, int] | None = None

    async def logits(self, token: int, position: int, *, stage: str = "decode_ms") -> Array:
        """Return the logits (V) after a token, read whole by the host; NotFiniteError."""
        began = perf_counter()
        self._place(token, position)
        (result,) = (await self.logits_of.run({}, {})).values()
        self._note(stage, began)
        self.totals["logits_reads"] += 1
        if not np.isfinite(result).all():
            raise self.not_finite(f"a logit after token {position}")
        return result.reshape(-1)

    async def read(self, token: int, position: int) -> None:
        """Read a token of the prompt without reading back."""
        began = perf_counter()
        self._place(token, position)
        await self.logits_of.submit({}, {})
        self._note("prompt_ms", began)

    async def choose(
        self, token: int, position: int, allowed: AllowedTokens, *, stage: str = "decode_ms"
    ) -> tuple[int, float]:
        """Return the most likely allowed token after a token, and its log probability.

        The device chooses: two numbers are read back. NotFiniteError as `logits`.
        """
        began = perf_counter()
        self._place(token, position)
        self.states.write("rules", 0, allowed.words())
        (result,) = (await self.choice.run({}, {})).values()
        self._note(stage, began)
        chosen, probability = int(result[0]), float(result[1])
        if chosen < 0:
            raise self.not_finite(f"a logit after token {position}")
        self._placed = chosen, position + 1
        return chosen, log(probability)

    def _place(self, token: int, position: int) -> None:
        if self._placed != (token, position):
            self.states.write("tokens", 4 * position, array("I", [token]))
            self.states.write("position", 0, array("I", [position]))
        self._placed = token, position

    def _note(self, stage: str, began: float) -> None:
        self.totals[stage] += 1e3 * (perf_counter() - began)
        self.totals["decoder_steps"] += 1
