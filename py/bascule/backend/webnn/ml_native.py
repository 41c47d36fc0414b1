"""The WebNN driver outside a page: PyPI's pywebnn, over ONNX Runtime or CoreML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from bascule.backend.webnn.recipe import LISTED, Array, Recipe, Step
from bascule.base.arrays import np
from bascule.errors import TierUnavailableError, WebNnError

_SPELLING = {"where": "where_"}  # `where_` as Python's own names are spelt; others regularly


class NativeMl:
    """An `Ml` with one context, on the CPU."""

    lost = ""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._graphs: dict[int, Any] = {}
        self._last = 0
        device = context.backend_info().get("backend", "unknown")
        self.name = f"pywebnn {metadata.version('pywebnn')}, {device}"

    @property
    def n_graphs(self) -> int:
        return len(self._graphs)

    async def build(self, recipe: Recipe, parameters: Mapping[str, Array]) -> int:
        builder = self._context.create_graph_builder()
        nodes: list[Any] = []
        try:
            for step in recipe.steps:
                nodes.append(_built(builder, step, nodes, {**parameters, **recipe.constants}))
            graph = builder.build({name: nodes[at] for name, at in recipe.outputs.items()})
        except (RuntimeError, TypeError, ValueError) as error:
            raise WebNnError("build", str(error)) from error
        self._last += 1
        self._graphs[self._last] = graph
        return self._last

    async def run(self, graph: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Ml.run`. pywebnn holds the GIL while it computes."""
        try:
            result = self._context.compute(self._graphs[graph], dict(inputs))
        except (RuntimeError, TypeError, ValueError) as error:
            raise WebNnError("run", str(error)) from error
        return {name: np.asarray(array) for name, array in result.items()}

    def free(self, graph: int) -> None:
        self._graphs.pop(graph, None)

    def close(self) -> None:
        self._graphs.clear()


def _built(builder: Any, step: Step, nodes: list[Any], constants: Mapping[str, Array]) -> Any:
    if step.method == "constant":
        return builder.constant(constants[str(step.arguments[0])])
    arguments = [list(a) if isinstance(a, tuple) else a for a in step.arguments]
    if step.method == "input":
        return builder.input(*arguments)
    operands: list[Any] = [nodes[at] for at in step.operands]
    if step.method in LISTED:
        operands = [operands]
    options = {_snake(k): list(v) if isinstance(v, tuple) else v for k, v in step.options.items()}
    options |= {_snake(name): nodes[at] for name, at in step.named.items()}
    method = getattr(builder, _SPELLING.get(step.method, _snake(step.method)))
    return method(*operands, *arguments, **options)


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda upper: f"_{upper[0].lower()}", name)


async def open_native() -> NativeMl:
    """Open a context; TierUnavailableError without pywebnn, or if it has no backend."""
    try:
        from webnn import ML  # pyright: ignore
    except ImportError as error:
        problem = f"outside a page it needs the package pywebnn ({error})"
        hint = 'pip install pywebnn (it has wheels for Python 3.12), or use tier="auto".'
        raise TierUnavailableError("webnn", problem, hint=hint) from None
    context: Any = ML().create_context(device_type="cpu")
    if not context.backend_info().get("backend_available"):
        raise TierUnavailableError("webnn", "pywebnn has no runtime to compute with here")
    return NativeMl(context)
