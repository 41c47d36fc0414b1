"""The k best of each row of scores, selected on the device."""

from __future__ import annotations

from bascule.backend.tiers import SHADER_TIERS
from bascule.base import assets
from bascule.base.arrays import Array, np
from bascule.kernels.buffer import DeviceBuffer
from bascule.kernels.kernel import Kernel
from bascule.kernels.kernel_device import KernelDevice
from bascule.kernels.shader import Shader

NONE = 0xFFFFFFFF  # the id of a place that nothing fills
_LOWEST = -3.4e38
_FILE = "shaders/user/top_scores.wgsl"
# Elements that a lane looks at for each that it may keep, and at least.
_LOOKED_AT_FOR_ONE = 16
_MIN_LOOKED_AT = 128
# This many candidates are few enough for a single lane.
_FEW = 512


def lanes_for(n: int, k: int) -> int:
    """Return the lanes that share a row of n elements."""
    if n <= _FEW:
        return 1
    return max(1, n // max(_LOOKED_AT_FOR_ONE * k, _MIN_LOOKED_AT))


class TopScores:
    """Selects, from each row of scores on a device, the k largest and their positions."""

    def __init__(self, device: KernelDevice) -> None:
        self._has_lanes = device.pool.backend.tier in SHADER_TIERS
        text = assets.text(_FILE)
        self._first = Kernel(device, Shader(text, "first", _FILE), {}, _reference)
        self._again = Kernel(device, Shader(text, "again", _FILE), {}, _reference_again)

    async def choose(
        self,
        scores: DeviceBuffer,
        n: int,
        k: int,
        first_id: int,
        into: tuple[DeviceBuffer, DeviceBuffer],
        at: int,
    ) -> None:
        """Write the k best of the first n scores of each row (rows, stride) to `into`, best first.

        Those of row r go to k elements from at + r * k on; ids count from `first_id`. If n is less
        than k the last ones are NONE.
        """
        rows, stride = scores.shape
        inputs: tuple[DeviceBuffer, ...] = (scores,)
        kernel, ids = self._first, {"first_id": first_id}
        while True:
            lanes = lanes_for(n, k) if self._has_lanes else 1
            out = into if lanes == 1 else (rows * lanes * k,) * 2
            sizes = {"rows": rows, "n": n, "stride": stride, "lanes": lanes, "k": k, **ids}
            place = at if lanes == 1 else 0
            result = await kernel(*inputs, out=out, count=rows * lanes, at=place, **sizes)
            for buffer in inputs:
                if buffer is not scores:
                    buffer.close()
            if lanes == 1:
                return
            inputs, kernel, ids = result, self._again, {"first_id": 0}
            n = stride = lanes * k

    def close(self) -> None:
        """Free the compiled kernels."""
        self._first.close()
        self._again.close()


def _reference(
    scores: Array,
    best: Array,
    best_ids: Array,
    rows: int,
    n: int,
    stride: int,
    lanes: int,
    k: int,
    first_id: int,
    at: int,
) -> tuple[Array, Array]:
    ids = np.broadcast_to(np.arange(first_id, first_id + n, dtype=np.uint32), (rows, n))
    return _chosen(scores.reshape(rows, stride)[:, :n], ids, (best, best_ids), lanes, k, at)


def _reference_again(
    scores: Array,
    ids: Array,
    best: Array,
    best_ids: Array,
    rows: int,
    n: int,
    lanes: int,
    k: int,
    at: int,
) -> tuple[Array, Array]:
    both = scores.reshape(rows, n), ids.reshape(rows, n)
    return _chosen(*both, (best, best_ids), lanes, k, at)


def _chosen(
    scores: Array, ids: Array, outputs: tuple[Array, Array], lanes: int, k: int, at: int
) -> tuple[Array, Array]:
    """Return what the lanes of each row leave in the outputs."""
    rows, n = scores.shape
    if lanes == 1 and n > 4 * k:
        scores, ids = _likely(scores, ids, k)
        n = scores.shape[1]
    per = max(k, -(-n // lanes))
    wide = np.full((rows, per * lanes), _LOWEST, np.float32)
    names = np.full((rows, per * lanes), NONE, np.uint32)
    wide[:, :n], names[:, :n] = scores, ids
    wide = wide.reshape(rows, per, lanes).swapaxes(1, 2)
    names = names.reshape(rows, per, lanes).swapaxes(1, 2)
    order = np.lexsort((names, -wide), axis=-1)[..., :k]
    best, best_ids = (each.reshape(-1).copy() for each in outputs)
    best[at : at + rows * lanes * k] = np.take_along_axis(wide, order, -1).reshape(-1)
    best_ids[at : at + rows * lanes * k] = np.take_along_axis(names, order, -1).reshape(-1)
    return best, best_ids


def _likely(scores: Array, ids: Array, k: int) -> tuple[Array, Array]:
    """Return the elements of each row that are at least its k-th best."""
    n = scores.shape[1]
    cutoffs = np.partition(scores, n - k, axis=1)[:, n - k]
    places = [np.flatnonzero(row >= worst) for row, worst in zip(scores, cutoffs, strict=True)]
    shape = len(scores), max(map(len, places))
    result, names = np.full(shape, _LOWEST, np.float32), np.full(shape, NONE, np.uint32)
    for at, inside in enumerate(places):
        result[at, : len(inside)] = scores[at, inside]
        names[at, : len(inside)] = ids[at, inside]
    return result, names
