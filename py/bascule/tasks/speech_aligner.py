"""Word timestamps of a window: decode its text once more, and look where each token attended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bascule.base.arrays import Array, np
from bascule.errors import ModelFileError
from bascule.models.speech.config import SpeechConfig
from bascule.tasks.speech_alignment import attention_weights, first_columns, smoothed
from bascule.tasks.speech_rows import Row, RowDecoder

# Rows per pass.
CHUNK = 16
_PLACE_S = 0.02

# Layers of the decoder, each with its alignment heads.
Heads = Mapping[int, tuple[int, ...]]


def read_heads(settings: Mapping[str, Any], config: SpeechConfig, place: str) -> Heads:
    """Return the alignment heads of a folder's settings, else all of the upper half of the layers.

    ModelFileError unless they are a list of pairs (layer, head).
    """
    half = config.decoder
    pairs = settings.get("alignment_heads")
    if pairs is None:
        upper = range(half.layers // 2, half.layers)
        return dict.fromkeys(upper, tuple(range(half.heads)))
    listed: list[Any] = pairs if isinstance(pairs, list) else []
    results: dict[int, list[int]] = {}
    for pair in listed:
        sound = isinstance(pair, list) and [type(n) for n in pair] == [int, int]  # pyright: ignore[reportUnknownVariableType]
        if not (sound and 0 <= pair[0] < half.layers and 0 <= pair[1] < half.heads):
            listed = []
            break
        results.setdefault(pair[0], []).append(pair[1])
    if not listed:
        expected = f"pairs of a layer below {half.layers} and a head below {half.heads}"
        raise ModelFileError(place, f"its alignment_heads are not {expected}")
    return {layer: tuple(sorted(set(heads))) for layer, heads in sorted(results.items())}


class Aligner:
    """Finds when the tokens of a window are spoken; `rows` gives queries of the heads' layers."""

    def __init__(self, rows: RowDecoder, heads: Heads) -> None:
        self._rows = rows
        self._heads = heads

    async def times(
        self, prompt: Sequence[int], ids: Sequence[int], end: int, n_places: int
    ) -> tuple[list[float], list[float]]:
        """Return the seconds (N + 1) at which tokens start and the last ends, and their
        probabilities.

        `ids` (N) is text, all below `end`; `n_places` positions of the encoder contain sound.
        """
        logits, queries = await self._decoded([*prompt, *ids, end])
        first = len(prompt) - 1
        weights = [
            attention_weights(each, keys, max(1, n_places))
            for layer, rows in zip(self._heads, queries, strict=True)
            for each, keys in await self._by_head(layer, rows)
        ]
        cost = -smoothed(np.stack(weights))[first:-1]
        times = (first_columns(cost) * _PLACE_S).tolist()
        return times, [_share(logits[first + at][:end], token) for at, token in enumerate(ids)]

    async def _decoded(self, ids: Sequence[int]) -> tuple[list[Array], list[Array]]:
        """Return the logits (V) after each token, and each layer's queries (T, C)."""
        logits: list[Array] = []
        queries: list[list[Array]] = [[] for _ in self._heads]
        before: list[int] = []
        for at in range(0, len(ids), self._rows.count):
            rows: list[Row] = []
            for place in range(at, min(len(ids), at + self._rows.count)):
                own = range(self._rows.slot, self._rows.slot + place - at)
                rows.append(Row(ids[place], place, [*before, *own]))
            slots, (result, *of_layers) = await self._rows.run(rows)
            before += slots
            logits.extend(result)
            for layer, each in zip(queries, of_layers, strict=True):
                layer.append(each)
        return logits, [np.concatenate(each) for each in queries]

    async def _by_head(self, layer: int, queries: Array) -> list[tuple[Array, Array]]:
        """Return the queries (T, D) and the keys (X, D) of a layer's heads."""
        programs = self._rows.programs
        config = programs.speech.config
        places, c = config.encoder.places, config.hidden
        dtype = np.dtype(np.float16 if programs.cache == "f16" else np.float32)
        raw = bytearray(places * 2 * c * dtype.itemsize)
        await programs.states.read(f"cross.{layer}", 0, raw)
        keys = np.frombuffer(raw, dtype).reshape(places, 2 * c)
        size = c // config.decoder.heads
        spans = (slice(head * size, (head + 1) * size) for head in self._heads[layer])
        return [(queries[:, span], keys[:, span]) for span in spans]


def _share(logits: Array, token: int) -> float:
    """Return the probability of a token among text tokens."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return float(weights[token] / weights.sum())
