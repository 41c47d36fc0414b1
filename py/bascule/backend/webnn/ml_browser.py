"""The WebNN driver in a page: Pyodide to web/bridge/webnn.js and the browser's navigator.ml."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import astuple
from math import prod
from typing import Any

from pyodide.ffi import JsException

from bascule.backend.webnn.recipe import Array, Recipe
from bascule.base.arrays import np
from bascule.base.bridge_browser import bridge_module, js_message
from bascule.errors import DeviceLostError, TierUnavailableError, WebNnError

_LIMIT_S = 20.0


class BrowserMl:
    """The `Ml` of a page."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self._outputs: dict[int, dict[str, int]] = {}
        self.name = f"navigator.ml, {bridge.device}"

    @property
    def lost(self) -> str:
        return str(self._bridge.lost)

    @property
    def n_graphs(self) -> int:
        return len(self._outputs)

    async def build(self, recipe: Recipe, parameters: Mapping[str, Array]) -> int:
        try:
            building = self._bridge.begin(json.dumps([astuple(step) for step in recipe.steps]))
            for name, array in {**parameters, **recipe.constants}.items():
                building.constant(name, array.ravel())
            graph = int(await building.finish(json.dumps(recipe.outputs)))
        except JsException as error:
            raise self._webnn_error("build", error) from None
        self._outputs[graph] = {n: prod(recipe.shapes[at]) for n, at in recipe.outputs.items()}
        return graph

    async def run(self, graph: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
        results = {n: np.empty(size, np.float32) for n, size in self._outputs[graph].items()}
        try:
            for name, array in inputs.items():
                self._bridge.write(graph, name, array.ravel())
            self._bridge.dispatch(graph)
            for name, array in results.items():
                await self._bridge.read(graph, name, array)
        except JsException as error:
            raise self._webnn_error("run", error) from None
        return dict(results)

    def free(self, graph: int) -> None:
        del self._outputs[graph]
        self._bridge.free(graph)

    def close(self) -> None:
        self._outputs.clear()
        self._bridge.destroy()

    def _webnn_error(self, verb: str, error: JsException) -> DeviceLostError | WebNnError:
        lost = self.lost
        return DeviceLostError(lost) if lost else WebNnError(verb, js_message(error))


async def open_browser() -> BrowserMl:
    """Open the page's context; TierUnavailableError with the browser's message if it gives none."""
    bridge = await bridge_module("bridge/webnn.js")
    try:
        async with asyncio.timeout(_LIMIT_S):
            return BrowserMl(await bridge.openContext())
    except TimeoutError:
        problem = f"the browser made no context within {_LIMIT_S:.0f} s"
        raise TierUnavailableError("webnn", problem) from None
    except JsException as error:
        raise TierUnavailableError("webnn", js_message(error).rstrip(".")) from None
