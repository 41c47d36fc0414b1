"""What web/worker.js calls: a model in a worker, spoken to in strings and buffers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bascule import cache
from bascule.errors import BasculeError, InputError
from bascule.model.embedder import EmbeddingModel
from bascule.platform import load
from bascule.progress import Progress
from bascule.tiers.selector import OpenedTier, open_tier


class PageSession:
    """One model at a time, on devices that outlive it: browsers free a device late, if at all.

    An answer is JSON, {"error": ...} among it, or an array's memory.
    """

    def __init__(self) -> None:
        self._model: EmbeddingModel | None = None
        self._tiers: dict[str, OpenedTier] = {}
        self._running: asyncio.Task[Any] | None = None

    async def load(self, model: str, tier: str, report: Callable[..., None]) -> str:
        """Load a model in place of the present one; `report(stage, done, total, unit)`."""

        def tell(progress: Progress) -> None:
            report(progress.stage, progress.done, progress.total, progress.unit)

        async def work() -> str:
            self._close_model()
            tell(Progress("device", 0, 1, "steps"))
            on = await self._tier(tier)
            self._model = made = await load(model, progress=tell, on=on)
            return json.dumps(
                {
                    "model": made.name,
                    "tier": made.tier,
                    "reason": made.tier_reason,
                    "device": made.device_name,
                    "dimension": made.dimension,
                    "maxTokens": made.max_tokens,
                    "stats": made.stats,
                    "warnings": await cache.warnings(),
                }
            )

        return await self._answered(work())

    async def embed(self, texts: str) -> Any:
        """Embed a JSON list of texts: the (n, C) float32 array, or a JSON error."""

        async def work() -> Any:
            if self._model is None:
                raise InputError("embed", "a loaded model", "none")
            return await self._model.embed(json.loads(texts))

        return await self._answered(work())

    async def tune(self, budget_s: float, report: Callable[..., None]) -> str:
        """Tune the device for the loaded model; reports as `load` does."""

        def tell(progress: Progress) -> None:
            report(progress.stage, progress.done, progress.total, progress.unit)

        async def work() -> str:
            if self._model is None:
                raise InputError("tune", "a loaded model", "none")
            return json.dumps((await self._model.tune(budget_s, progress=tell)).as_json())

        return await self._answered(work())

    async def cache(self, action: str, locations: str) -> str:
        """List ("ls"), remove ("rm", a JSON list of locations or null for all) or "verify"."""

        async def work() -> str:
            match action:
                case "ls":
                    return json.dumps([asdict(kept) for kept in await cache.ls()])
                case "rm":
                    wanted = json.loads(locations)
                    return json.dumps(await cache.rm(wanted or (), everything=wanted is None))
                case "verify":
                    return json.dumps(await cache.verify())
                case _:
                    raise InputError("cache", "ls, rm or verify", repr(action))

        return await self._answered(work(), cancellable=False)

    def stats(self) -> str:
        """The model's counters."""
        return json.dumps({} if self._model is None else self._model.stats)

    async def cancel(self) -> None:
        """Stop what runs; its own answer then says so."""
        # A coroutine, because JavaScript's calls of coroutines begin later: what was asked for
        # before has begun by now.
        self._stop()

    def close(self) -> None:
        """Free the model."""
        self._stop()
        self._close_model()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _tier(self, wanted: str) -> OpenedTier:
        for opened in self._tiers.values():
            # A device that "auto" has opened serves who asks for that tier by name, too.
            if opened.backend.tier == wanted and not opened.backend.lost:
                return OpenedTier(opened.backend, f"{wanted} was asked for")
        opened = self._tiers.get(wanted)
        if opened is None or opened.backend.lost:
            opened = self._tiers[wanted] = await open_tier(wanted)
        return opened

    def _close_model(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None

    async def _answered(self, work: Any, *, cancellable: bool = True) -> Any:
        task = asyncio.ensure_future(work)
        if cancellable:
            self._running = task
        try:
            return await task
        except asyncio.CancelledError:
            return _error("cancelled", "It was cancelled.", "")
        except BasculeError as error:
            return _error(error.category, error.what, error.hint)
        except MemoryError:
            return _error("memory", "The page has run out of memory.", "Close other tabs, reload.")
        except Exception as error:  # nothing may get lost between two languages
            return _error("internal", f"{type(error).__name__}: {error}", "Please report this.")
        finally:
            if self._running is task:
                self._running = None


def _error(category: str, what: str, hint: str) -> str:
    return json.dumps({"error": {"category": category, "what": what, "hint": hint}})
