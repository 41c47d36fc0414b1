"""The row types of `models.table`: families of models.

A family checks its config, names its tensors and records its phases. What is done with the results
(embeddings, generated text) belongs to the tasks.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from bascule.base.dtypes import DType
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import CacheDType, Decoding
from bascule.models.encoder.classes import Squash
from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import Encoding
from bascule.models.encoder.head import Head
from bascule.models.image.config import ImageConfig
from bascule.models.image.graph import ImageEncoderGraph
from bascule.models.image_text.config import ImageTextConfig
from bascule.models.image_text.graph import TextRecorder
from bascule.models.speech.config import Rows, SpeechConfig
from bascule.models.tensors import Tensors
from bascule.models.text_to_text.config import T5Config
from bascule.models.text_to_text.graph import Transforming
from bascule.models.text_to_text.rows import TextRows
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value
from bascule.weights.ctranslate2 import Read
from bascule.weights.safetensors import TensorInfo

Task = Literal["embed", "classify", "generate", "transcribe", "transform", "see", "detect"]
_NONE = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The fields that all rows share.

    `model_types` are those of a config.json, `examples` names well-known models. `tensor_name`
    gives the name that a tensor of the graph has in a Hugging Face folder, optionally after one of
    `prefixes`; tensors that match `ignored` are not read.
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

    `config` checks a config.json: ModelFileError if it is unsound, UnsupportedModelError if it does
    not run. `head` is that of its sequence classifiers; with `typed_pairs` the second text of a
    pair has token type 1.
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
    embedding. If a config.json does not say, `tied` models use the embedding as their output.
    """

    config: Callable[[Mapping[str, Any], str], DecoderConfig]
    tensors: Callable[[DecoderConfig], Tensors]
    phases: Mapping[Literal["decode"], Callable[[Decoding], Value | None]]
    architectures: Mapping[str, MetadataReader] = field(default_factory=dict[str, "MetadataReader"])
    tied: bool = False
    tasks: tuple[Task, ...] = ("generate",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechFamily(Family):
    """Speech to text: a spectrum `mel` (bands, F) fills states that each decoder step reads.

    `config` checks a config.json, errors as above, `tensors` are those of a folder, and
    `as_matrices` gives each at most two axes. `phases` record both passes, `decode_rows` the
    decoder's over several tokens; `states` has the contents of the states that do not start as
    zeros. A config.json without a model_type that has the `converted_keys` belongs to a folder of
    CTranslate2, whose model.bin (read by offset and count, of that many bytes, of that name)
    `read_converted` reads. `settings_files` returns the JSON files of a Hugging Face folder of
    these sizes.
    """

    config: Callable[[Mapping[str, Any], str], SpeechConfig]
    tensors: Callable[[SpeechConfig], Tensors]
    as_matrices: Callable[
        [Mapping[str, Mapping[str, TensorInfo]]], dict[str, dict[str, TensorInfo]]
    ]
    phases: Mapping[Literal["encode", "decode"], Callable[[Graph, SpeechConfig, CacheDType], Value]]
    decode_rows: Callable[[Graph, SpeechConfig, CacheDType, Rows], list[Value]]
    states: Callable[[SpeechConfig], Mapping[str, array[int] | array[float]]]
    converted_keys: frozenset[str]
    read_converted: Callable[
        [Read, int, str], Awaitable[tuple[SpeechConfig, dict[str, TensorInfo]]]
    ]
    settings_files: Callable[[SpeechConfig], dict[str, Mapping[str, Any]]]
    tasks: tuple[Task, ...] = ("transcribe",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToTextFamily(Family):
    """An encoder-decoder over texts; `config` checks a config.json, errors as above.

    `encode` records the source's pass -> encoder states (1, T, C), `decode` that of one token of
    the target: S slots, the states `tokens` and `position` -> logits (1, V). `encode_rows` and
    `decode_rows` record the same passes over several texts at once.
    """

    config: Callable[[Mapping[str, Any], str], T5Config]
    tensors: Callable[[T5Config], Tensors]
    encode: Callable[[Transforming, Dim], Value]
    decode: Callable[[Transforming, Dim, Value, Value], Value]
    encode_rows: Callable[[Transforming, TextRows], Value]
    decode_rows: Callable[[Transforming, TextRows], Value]
    tasks: tuple[Task, ...] = ("transform",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFamily(Family):
    """An encoder of images: pixels -> features of each position (B, T, C).

    `config` checks a config.json, errors as above. `labels` names the layer of its classifiers,
    whose architectures are `classifiers`; with `labels_of_means` it reads the class token's
    features and the mean of the patches', otherwise only the former. Models of `any_size` read
    images of the size that their folder's processing gives.
    """

    config: Callable[[Mapping[str, Any], str], ImageConfig]
    tensors: Callable[[ImageConfig], Tensors]
    phases: Mapping[Literal["image"], Callable[[ImageEncoderGraph, Value], Value]]
    labels: str
    classifiers: tuple[str, ...]
    labels_of_means: bool = False
    any_size: bool = False
    tasks: tuple[Task, ...] = ("see",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextFamily(Family):
    """An image encoder and a text encoder with one embedding space.

    `config` checks a config.json, errors as above, `as_matrices` gives tensors at most two axes.
    `encode_image` records pixels, and `encode_text` ids, -> embeddings of length 1 (B, D).
    `logit_scale` names the tensor of one number, the logarithm of the factor of a cosine, and
    `logit_bias` that of what is added then; `squash` converts such logits to probabilities.
    `processing` has the defaults of preprocessor_config.json. `tokenizer_json` makes the file of
    that name from a vocab.json, a merges.txt and their folder; a family without it says in
    `tokenizer_hint` how to make one. `adapt_tokenizer` adds to a folder's tokenizer.json what the
    family does to a text first.
    """

    config: Callable[[Mapping[str, Any], str], ImageTextConfig]
    tensors: Callable[[ImageTextConfig], Tensors]
    as_matrices: Callable[[Mapping[str, TensorInfo]], dict[str, TensorInfo]]
    encode_image: Callable[[ImageEncoderGraph, Value, int], Value]
    encode_text: Callable[[TextRecorder], Value]
    logit_scale: str
    processing: Mapping[str, Any]
    logit_bias: str = ""
    squash: Squash = "softmax"
    tokenizer_json: Callable[[Mapping[str, Any], bytes, str], bytes] | None = None
    tokenizer_hint: str = ""
    adapt_tokenizer: Callable[[bytes, str], bytes] | None = None
    tasks: tuple[Task, ...] = ("see", "embed")


@dataclass(frozen=True, slots=True)
class VoiceWindows:
    """How a recording at 16 kHz is cut: windows of `samples` after `context` previous ones, with
    `mirrored` ones of it after them, in frames of `frame` samples, one every `step`.
    """

    samples: int
    context: int
    mirrored: int
    frame: int
    step: int

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return (self.context + self.samples + self.mirrored - self.frame) // self.step + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceFamily(Family):
    """Voice activity: windows of a recording -> whether each has speech.

    A folder has `file` and needs no config.json: the sizes of its `tensors` are fixed, and
    `as_matrix` gives each at most two axes. `record` records the pass over that many windows:
    `frames` (W * F, K), the `state` (S) before the first and `lengths` (1) u32, the number of
    windows -> logits (W, 1), and the state after the last (1, S).
    """

    file: str
    tensors: Tensors
    windows: VoiceWindows
    state: int
    record: Callable[[Graph, int], None]
    as_matrix: Callable[[TensorInfo], TensorInfo]
    tasks: tuple[Task, ...] = ("detect",)


AnyFamily: TypeAlias = (
    EncoderFamily | DecoderFamily | SpeechFamily | TextToTextFamily | ImageFamily | ImageTextFamily
)

MetadataReader: TypeAlias = Callable[
    [Mapping[str, Any], Mapping[str, DType], int, str], DecoderConfig
]
