"""The result of `EmbeddingModel.embed`: an array with the lengths of its texts.

Imports numpy, unlike its neighbours: whoever creates one has an array already.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Embeddings(np.ndarray[Any, np.dtype[np.float32]]):
    """Embeddings, float32 (n, C): a numpy array; computing with it gives plain arrays.

    `n_tokens` are the tokens of each text that were used, including special ones, and `truncated`
    the indices of the longer texts that were cut.
    """

    n_tokens: tuple[int, ...] = ()
    truncated: tuple[int, ...] = ()

    @property
    def total_tokens(self) -> int:
        """The number of tokens of all texts."""
        return sum(self.n_tokens)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    def __reduce__(self) -> Any:
        return embeddings_of, (np.asarray(self), self.n_tokens, self.truncated)


def embeddings_of(
    array: np.ndarray[Any, Any], n_tokens: tuple[int, ...], truncated: tuple[int, ...]
) -> Embeddings:
    """View an array as `Embeddings`."""
    result = array.view(Embeddings)
    result.n_tokens, result.truncated = n_tokens, truncated
    return result


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, Embeddings) else value
