"""Align tokens and time: cross-attention smoothed, and the cheapest path through it.

Method: the code of Radford et al. 2022. Attention of the chosen heads is normalized over the
tokens, smoothed over time by a median and averaged; dynamic time warping orders the result.
"""

from __future__ import annotations

from bascule.base.arrays import Array, np

_MEDIAN = 7  # places of 20 ms


def attention_weights(queries: Array, keys: Array, n_places: int) -> Array:
    """Return softmax(q @ k.T / sqrt(D)) (T, X) of q (T, D) and the first `n_places` of k (P, D)."""
    q, k = queries.astype(np.float64), keys[:n_places].astype(np.float64)
    scores = q @ k.T * q.shape[1] ** -0.5
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True)


def smoothed(weights: Array) -> Array:
    """Return the average (T, X) of heads' weights (H, T, X), normalized and smoothed."""
    centred = weights - weights.mean(axis=1, keepdims=True)
    spread = weights.std(axis=1, keepdims=True)
    normal = centred / np.where(spread > 0, spread, 1.0)
    return _median(normal).mean(axis=0)


def _median(x: Array) -> Array:
    """Return medians over the last axis, mirrored at its ends; x unchanged if it is too short."""
    pad = _MEDIAN // 2
    if x.shape[-1] <= pad:
        return x
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(wide, _MEDIAN, axis=-1)
    return np.median(windows, axis=-1)


def warping_path(cost: Array) -> tuple[Array, Array]:
    """Return the cheapest monotonic path through cost (N, M): its rows, and its columns.

    It starts at (0, 0), ends at (N - 1, M - 1) and advances by a row, a column or both. A diagonal
    of the matrix depends only on the two before it, so each is one numpy step.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    came = np.zeros((n, m), np.uint8)  # 0 by both, 1 by a row, 2 by a column
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        both, row, column = total[i, j], total[i, j + 1], total[i + 1, j]
        step = np.where((row < both) & (row < column), 1, 2)
        step[(both < row) & (both < column)] = 0
        came[i, j] = step
        total[i + 1, j + 1] = cost[i, j] + np.choose(step, (both, row, column))
    rows, columns, i, j = [n - 1], [m - 1], n - 1, m - 1
    while i or j:
        step = 2 if not i else 1 if not j else came[i, j]
        i, j = i - (step != 2), j - (step != 1)
        rows.append(i)
        columns.append(j)
    return np.array(rows[::-1]), np.array(columns[::-1])


def first_columns(cost: Array) -> Array:
    """Return the column (N) at which the path through cost (N, M) reaches each row."""
    rows, columns = warping_path(cost)
    return columns[np.searchsorted(rows, np.arange(cost.shape[0]))]
