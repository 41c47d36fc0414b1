"""Choose the next token.

`settings` (8) u32 are: temperature (bits of f32; 0 is greedy), top_k (0 is off), top_p (f32; 1 is
off), min_p (f32; 0 is off), penalty (f32; 0 and 1 are off), the penalty's window in tokens, the
seed, and an unused word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bascule.base.arrays import Array, np
from bascule.program.ops import samples
from bascule.program.ops.states import POSITION, TOKENS
from bascule.program.ops.table import Op, Operand, first_two, need
from bascule.program.program import Attribute, Shape

# The token if a logit is NaN, or the highest infinite. The host reads tokens anyway, so this
# reports the fault at no cost.
NOT_A_TOKEN = 0xFFFFFFFF

SETTINGS = 8  # words of a sampler's settings
RULES = 4  # words of the rules of allowed_token

_LOGITS = Operand("logits", "input", cut=(1, samples.VOCABULARY), sample=samples.logits)
_SETTINGS = Operand("settings", "state", sample=samples.settings)
_KINDS = Operand("kinds", "state", cut=(0, samples.VOCABULARY), sample=samples.kinds)
_RULES = Operand("rules", "state", sample=samples.rules)
# The states of a text, which grows by one token.
_APPENDED = (replace(TOKENS, updated=True), replace(POSITION, updated=True))


def _token(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    (logits, tokens), position = first_two(shapes, "sampling"), shapes[2]
    fits = len(logits) == 2 and logits[0] == 1 and len(tokens) == 1 and position == (1,)
    need(fits, "sampling", "logits (1, V), tokens (S) and position (1)", shapes)
    need(shapes[3:] in ((), ((SETTINGS,),)), "sampling", f"settings ({SETTINGS})", shapes[3:])
    return (1,)


def _penalise(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    _token(shapes, attributes)
    return shapes[0] or ()


def _allowed(shapes: tuple[Shape | None, ...], attributes: Mapping[str, Attribute]) -> Shape:
    _token(shapes[:3], attributes)
    logits, _ = first_two(shapes, "allowed_token")
    expected = f"kinds (V) and rules ({RULES})"
    need(shapes[3:] == (logits[1:], (RULES,)), "allowed_token", expected, shapes[3:])
    return (2,)


def argmax_token(logits: Array, tokens: Array, position: Array) -> Array:
    """The first of the highest logits, or NOT_A_TOKEN, becomes the next token."""
    return _append_token(first_highest(logits[0]), tokens, position)


def first_highest(logits: Array) -> int:
    """Return the first of the highest ids, or NOT_A_TOKEN."""
    first = int(np.argmax(logits))  # the first NaN where there is one
    return first if np.isfinite(logits[first]) else NOT_A_TOKEN


def _append_token(token: int, tokens: Array, position: Array) -> Array:
    position += 1
    tokens[int(position[0]) % len(tokens)] = token
    return np.array([token], np.uint32)


def penalise(logits: Array, tokens: Array, position: Array, settings: Array) -> Array:
    """Make each of the last `window` tokens less likely, once (Keskar et al. 2019)."""
    penalty, window = float(_numbers(settings)[4]), int(settings[5])
    here = int(position[0])
    came = np.arange(max(0, here + 1 - min(window, len(tokens))), here + 1)
    ids = np.unique(tokens[came % len(tokens)])
    ids = ids[ids < logits.shape[1]]
    y = logits.copy()
    if penalty > 0:
        y[0, ids] = np.where(y[0, ids] > 0, y[0, ids] / penalty, y[0, ids] * penalty)
    return y


def sample_token(logits: Array, tokens: Array, position: Array, settings: Array) -> Array:
    """Sample an id, greedily at temperature 0; it becomes the next token, as in argmax_token."""
    if first_highest(logits[0]) == NOT_A_TOKEN:
        return _append_token(NOT_A_TOKEN, tokens, position)
    weights = kept_weights(logits[0], settings)
    token = pick(weights, uniform_at(int(settings[6]), int(position[0])))
    return _append_token(token, tokens, position)


def allowed_token(
    logits: Array, tokens: Array, position: Array, kinds: Array, rules: Array, *, times: int
) -> Array:
    """Return the first of the highest allowed logits, and its probability among the allowed.

    An id is allowed if its kind is 0, or 1 (not the first token) and `is_first` is 0, and it is in
    [text_first, times) or [times_first, times_end); `rules` are these three and `is_first`. Ids
    from `times` on are timestamps: if the allowed ones together are likelier than any allowed text,
    only they are allowed. The id is -1 if a logit is not finite or none is allowed.
    """
    text_first, times_first, times_end, is_first = (int(word) for word in rules)
    x, ids = logits[0].astype(np.float64), np.arange(logits.shape[1])
    is_text = (ids >= text_first) & (ids < times)
    is_time = (ids >= max(times_first, times)) & (ids < times_end)
    open_ids = kinds + is_first < 2
    allowed = open_ids & (is_text | is_time)
    if not np.isfinite(x).all() or not allowed.any():
        _append_token(NOT_A_TOKEN, tokens, position)
        return np.array([-1, 0], np.float32)
    weights = np.where(allowed, np.exp(x - x[allowed].max()), 0)
    if weights[times:].sum() > weights[:times].max(initial=0):
        allowed &= is_time
    token = int(np.where(allowed, x, -np.inf).argmax())
    _append_token(token, tokens, position)
    return np.array([token, weights[token] / weights[allowed].sum()], np.float32)


def kept_weights(logits: Array, settings: Array) -> Array:
    """Return each id's weight relative to the highest, 0 for what top-k, top-p and min-p exclude.

    They apply in this order, each to what the previous one kept; ties are kept or excluded
    together. top-p (Holtzman et al. 2020) keeps the fewest whose share of the weight reaches it,
    min-p (Nguyen et al. 2024) those that weigh at least that much relative to the highest. The
    highest is finite, and no logit NaN.
    """
    temperature, _, top_p, min_p = _numbers(settings)[:4]
    top_k = int(settings[1])
    first = first_highest(logits)
    if not temperature > 0:
        return (np.arange(len(logits)) == first).astype(np.float64)
    x = (logits.astype(np.float64) - logits[first]) / temperature
    order = np.sort(x)[::-1]
    cutoff = -np.inf
    if 0 < top_k < len(x):
        cutoff = order[top_k - 1]
    if top_p < 1:
        mass = np.cumsum(np.exp(order[order >= cutoff]))
        cutoff = order[np.searchsorted(mass, max(top_p, 0) * mass[-1])]
    if min_p > 0:
        cutoff = max(cutoff, np.log(min(min_p, 1.0)))
    return np.where(x >= cutoff, np.exp(x), 0)


def pick(weights: Array, u: float) -> int:
    """Return the first id whose cumulative weight exceeds u, in [0, 1), times the total."""
    mass = np.cumsum(weights)
    return int(np.searchsorted(mass, u * mass[-1], side="right"))


def uniform_at(seed: int, at: int) -> float:
    """Return a number in [0, 1) for a seed and a position: pcg2d of Jarzynski & Olano 2020."""
    x, y = ((v * 1664525 + 1013904223) % 2**32 for v in (seed, at))
    for _ in range(2):
        x = (x + y * 1664525) % 2**32
        y = (y + x * 1664525) % 2**32
        x, y = x ^ x >> 16, y ^ y >> 16
    return (x >> 8) / 2**24


def _numbers(settings: Array) -> Array:
    with np.errstate(invalid="ignore"):  # a seed may look like a NaN
        return np.ascontiguousarray(settings).view(np.float32).astype(np.float64)


ROWS = (
    Op(
        "argmax_token",
        (_LOGITS, *_APPENDED),
        {},
        "y = argmax(logits); tokens[(position + 1) % S] = y; position += 1",
        _token,
        result="u32",
        numpy=argmax_token,
    ),
    Op(
        "allowed_token",
        (_LOGITS, *_APPENDED, _KINDS, _RULES),
        {"times": int},
        "like argmax_token among the ids that `kinds` and `rules` allow; y (2) is the id and its "
        "probability among them",
        _allowed,
        numpy=allowed_token,
    ),
    Op(
        "penalise",
        (_LOGITS, TOKENS, POSITION, _SETTINGS),
        {},
        "logits, less likely for each token among the last `window`",
        _penalise,
        numpy=penalise,
    ),
    Op(
        "sample_token",
        (_LOGITS, *_APPENDED, _SETTINGS),
        {},
        "like argmax_token, but y is drawn from softmax(logits / temperature) after top-k, "
        "top-p and min-p",
        _token,
        result="u32",
        numpy=sample_token,
    ),
)
