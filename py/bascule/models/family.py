"""What a family of models is: a row of `models.table`.

A family checks its settings, names its tensors and records its phases. What is done with the
results (embeddings, generated text) belongs to the tasks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from bascule.base.dtypes import DType
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import Decoding
from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import Encoding
from bascule.models.encoder.head import Head
from bascule.program.program import Value

Task = Literal["embed", "classify", "generate"]
# A tensor's own name (the one that the graph has) and its shape; ANY rows are fine.
Tensors: TypeAlias = Iterable[tuple[str, tuple[int, ...]]]

# A first size that may be any.
ANY = -1
_NONE = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What rows have in common.

    `model_types` are those of a config.json, `examples` names models that people know.
    `tensor_name` gives the name that a tensor of the graph has in a Hugging Face folder, where one
    of `prefixes` may stand before it; tensors that match `ignored` there are not read.
    """

    name: str
    examples: str
    model_types: tuple[str, ...]
    tensor_name: Callable[[str], str]
    ignored: re.Pattern[str] = _NONE
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFamily(Family):
    """An encoder: ids (B, T) and lengths (B) -> features of each token (B, T, C).

    `config` checks a config.json: ModelFileError for what is unsound, UnsupportedModelError for
    what does not run. `head` is that of its sequence classifiers; with `typed_pairs` the second
    text of a pair has token type 1.
    """

    config: Callable[[Mapping[str, Any], str], EncoderConfig]
    tensors: Callable[[EncoderConfig], Tensors]
    phases: Mapping[Literal["encode"], Callable[[Encoding], Value]]
    head: Head | None = None
    typed_pairs: bool = False
    tasks: tuple[Task, ...] = ("embed", "classify")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFamily(Family):
    """A decoder over a KV cache: T tokens of the state `tokens` -> logits (T, V).

    `config` checks a config.json, errors as above; `metadata` does the same with a GGUF header of
    one of the `architectures`: its metadata, the types of its tensors and the rows of its token
    embedding. Where a config.json does not say, `tied` models have the embedding for their output.
    """

    config: Callable[[Mapping[str, Any], str], DecoderConfig]
    tensors: Callable[[DecoderConfig], Tensors]
    phases: Mapping[Literal["decode"], Callable[[Decoding], Value | None]]
    architectures: Mapping[str, MetadataReader] = field(default_factory=dict[str, "MetadataReader"])
    tied: bool = False
    tasks: tuple[Task, ...] = ("generate",)


MetadataReader: TypeAlias = Callable[
    [Mapping[str, Any], Mapping[str, DType], int, str], DecoderConfig
]
