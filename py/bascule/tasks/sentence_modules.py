"""The modules of a sentence-transformers pipeline after its Transformer.

Each reads a feature and writes one: "token_embeddings" (B, T, C), which the Transformer writes, or
"sentence_embedding" (B, C). Meanings are those of sentence_transformers 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from bascule.base.dtypes import DType
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.layers import matrix
from bascule.program.graph import Graph
from bascule.program.program import Value

TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"
_LAYER_NORM_EPS = 1e-5
_NORMALIZE_EPS = 1e-12


@dataclass(slots=True)
class Recording:
    """A pipeline that is being recorded.

    `lengths` and `skipped` (B) u32 are each text's number of tokens and those of its prompt;
    `weights` is the dtype of stored matrices.
    """

    graph: Graph
    features: dict[str, Value]
    lengths: Value
    skipped: Value | None
    weights: DType

    def read(self, name: str, place: str) -> Value:
        """Return a feature; UnsupportedModelError if no module before wrote it."""
        if name not in self.features:
            known = ", ".join(self.features)
            problem = f"it reads {name!r}, and the modules before it give {known}"
            raise UnsupportedModelError(place, problem)
        return self.features[name]


@dataclass(frozen=True, slots=True)
class Pooling:
    """One vector per text from its tokens, by each of `kinds` of the op `pool`, concatenated.

    With `skips_prompt` the tokens of a prompt do not count.
    """

    kinds: tuple[str, ...] = ("mean",)
    skips_prompt: bool = False
    place: str = ""

    def record(self, to: Recording) -> None:
        """Write "sentence_embedding"."""
        x = to.read(TOKENS, self.place)
        skipped = to.skipped if self.skips_prompt else None
        pooled = [to.graph.call("pool", x, to.lengths, skipped, kind=kind) for kind in self.kinds]
        to.features[SENTENCE] = to.graph.call("concat", *pooled) if len(pooled) > 1 else pooled[0]


@dataclass(frozen=True, slots=True)
class Dense:
    """activation(x @ weight.T + bias), and with `residual` x itself or a projection of it added.

    Its tensors are named `folder`/linear.weight and so on.
    """

    folder: str
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "tanh"
    residual: bool = False
    source: str = SENTENCE
    target: str = SENTENCE
    place: str = ""

    def record(self, to: Recording) -> None:
        """Write the target; ModelFileError if the input has another width."""
        x = to.read(self.source, self.place)
        if x.shape[-1] != self.in_features:
            problem = f"in_features is {self.in_features:,}, and its input has {x.shape[-1]:,}"
            raise ModelFileError(self.place, problem)
        shape, graph = (self.out_features, self.in_features), to.graph
        residual = x if self.residual else None
        if self.residual and self.in_features != self.out_features:
            side = matrix(graph, f"{self.folder}/residual.weight", shape, to.weights)
            residual = graph.call("linear", x, side, activation="none")
        weight = matrix(graph, f"{self.folder}/linear.weight", shape, to.weights)
        name = f"{self.folder}/linear.bias"
        bias = graph.parameter(name, shape[:1]) if self.bias else None
        to.features[self.target] = graph.call(
            "linear", x, weight, bias, residual, activation=self.activation
        )


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Layer normalization of sentence embeddings."""

    folder: str
    dimension: int
    place: str = ""

    def record(self, to: Recording) -> None:
        """Write "sentence_embedding"; ModelFileError if the input has another width."""
        x = to.read(SENTENCE, self.place)
        if x.shape[-1] != self.dimension:
            problem = f"dimension is {self.dimension:,}, and its input has {x.shape[-1]:,}"
            raise ModelFileError(self.place, problem)
        names = (f"{self.folder}/norm.{part}" for part in ("weight", "bias"))
        weight, bias = (to.graph.parameter(name, (self.dimension,)) for name in names)
        to.features[SENTENCE] = to.graph.call("layer_norm", x, weight, bias, eps=_LAYER_NORM_EPS)


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scale to length 1; does nothing if the feature does not exist."""

    source: str = SENTENCE
    target: str = SENTENCE

    def record(self, to: Recording) -> None:
        """Write the target."""
        x = to.features.get(self.source)
        if x is not None:
            to.features[self.target] = to.graph.call("l2_normalise", x, eps=_NORMALIZE_EPS)


Module: TypeAlias = Pooling | Dense | LayerNorm | Normalize

# The modules of a folder without modules.json.
DEFAULT_MODULES: tuple[Module, ...] = (Pooling(), Normalize())


def skips_prompts(modules: tuple[Module, ...]) -> bool:
    """Whether a module needs to know how many tokens a prompt has."""
    return any(isinstance(module, Pooling) and module.skips_prompt for module in modules)


def module_folders(modules: tuple[Module, ...]) -> tuple[str, ...]:
    """Return the folders of modules that have weights."""
    return tuple(module.folder for module in modules if isinstance(module, Dense | LayerNorm))
