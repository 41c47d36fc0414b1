"""Beam search over the text of a window: several texts grow side by side, the best one wins.

Rules of CTranslate2 and transformers: of the best 2B continuations of B texts, those among the
first B that end are finished, and the first B that do not end continue; enough finished texts end
the search. Texts share the keys and values of their common prefix: a text is a list of slots, so
following another parent moves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bascule.base.arrays import Array, np
from bascule.tasks.speech_rows import Row, RowDecoder

# Steps between two yields to the event loop.
_TURN = 4


@dataclass(frozen=True, slots=True)
class Beam:
    """A text, the sum of its tokens' log probabilities, and the slots of what it has read."""

    ids: tuple[int, ...]
    total: float
    slots: tuple[int, ...]

    def score(self, length_penalty: float) -> float:
        """Return the score for ranking; the end token does not count for the length."""
        return self.total / max(1, len(self.ids)) ** length_penalty


@dataclass(frozen=True, slots=True)
class Search:
    """Search settings: B `beams`, B * `patience` finished texts, each at most `max_tokens`."""

    beams: int
    patience: float
    length_penalty: float
    end: int
    max_tokens: int

    @property
    def enough(self) -> int:
        """Finished texts that end the search."""
        return max(1, round(self.beams * self.patience))


async def search_beams(
    rows: RowDecoder,
    prompt: Sequence[int],
    search: Search,
    log_probabilities: Callable[[Array, Sequence[int]], Array],
) -> tuple[Beam, Array]:
    """Return the best text after a prompt, and the logits (V) after the prompt's first token.

    `log_probabilities` weighs the logits (V) after a text's ids: minus infinity for what may not
    follow. NotFiniteError for logits that are not finite.
    """
    slots, logits = await read_prompt(rows, prompt)
    going, behind = [Beam((), 0.0, tuple(slots))], logits[-1:]
    finished: list[Beam] = []
    while True:
        weighed = [
            each.total + log_probabilities(x, each.ids)
            for each, x in zip(going, behind, strict=True)
        ]
        ended, grown = _continued(going, np.stack(weighed), search)
        finished += ended
        if not grown or len(finished) >= search.enough:
            break
        # Without a length penalty a longer text can only score lower.
        certain = max((each.total for each in finished), default=-np.inf)
        if not search.length_penalty and certain >= grown[0].total:
            break
        going = grown
        places = [len(prompt) + len(each.ids) - 1 for each in going]
        inputs = [
            Row(each.ids[-1], place, each.slots) for each, place in zip(going, places, strict=True)
        ]
        used, (result, *_) = await rows.run(inputs)
        behind = list(result)
        going = [
            Beam(each.ids, each.total, (*each.slots, slot))
            for each, slot in zip(going, used, strict=True)
        ]
        if len(going[0].ids) % _TURN == 0:
            await asyncio.sleep(0)
    best = max(finished, key=lambda each: each.score(search.length_penalty))
    return best, logits[0]


def _continued(
    going: Sequence[Beam], totals: Array, search: Search
) -> tuple[list[Beam], list[Beam]]:
    """Return the texts that end here, and those that continue, each most likely first."""
    flat, width = totals.reshape(-1), totals.shape[1]
    count = min(2 * search.beams, flat.size)
    best = np.argpartition(-flat, count - 1)[:count]
    best = best[np.argsort(-flat[best], kind="stable")]
    ended: list[Beam] = []
    grown: list[Beam] = []
    for rank, at in enumerate(best.tolist()):
        parent, token = going[at // width], at % width
        if flat[at] == -np.inf:
            break
        if token == search.end:
            if rank < search.beams:
                ended.append(Beam(parent.ids, float(flat[at]), parent.slots))
        elif len(grown) < search.beams:
            grown.append(Beam((*parent.ids, token), float(flat[at]), parent.slots))
    if grown and len(grown[0].ids) >= search.max_tokens:
        return [*ended, *grown][: search.beams], []
    return ended, grown


async def read_prompt(rows: RowDecoder, prompt: Sequence[int]) -> tuple[list[int], list[Array]]:
    """Read a text; return its tokens' slots, and the logits (V) after each."""
    slots: list[int] = []
    logits: list[Array] = []
    for first in range(0, len(prompt), rows.count):
        part = prompt[first : first + rows.count]
        own = range(rows.slot, rows.slot + len(part))
        inputs = [Row(token, first + at, [*slots, *own[:at]]) for at, token in enumerate(part)]
        used, (result, *_) = await rows.run(inputs)
        slots += used
        logits.extend(result)
    return slots, logits
