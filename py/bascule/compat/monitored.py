"""Run an operation on one backend after the other until it succeeds, and time each attempt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from inspect import isawaitable
from time import perf_counter
from typing import Any

from bascule.choosing.decisions import Candidate, Decision
from bascule.choosing.workload import BackendType
from bascule.compat.calling import takes_an_argument
from bascule.errors import BackendsFailedError

# Gets the backend of an attempt, its seconds, and whether it failed.
Note = Callable[[BackendType, float, bool], None]


class MonitoredRun:
    """See `IntelligentBackendSelector.execute_with_monitoring`; `decisions` is its log."""

    def __init__(
        self,
        name: str,
        order: Sequence[BackendType],
        func: Callable[..., Any],
        note: Note,
        decisions: deque[Decision],
    ) -> None:
        self._name = name
        self._note = note
        self._decisions = decisions
        self._remaining = iter(dict.fromkeys(order))
        self._call = func if takes_an_argument(func) else lambda _: func()
        self._errors: dict[BackendType, Exception] = {}

    def go(self) -> Any:
        """Return the first successful backend's result; another call tries the remaining ones."""
        for backend in self._remaining:
            started = perf_counter()
            try:
                result = self._call(backend)
            except Exception as error:
                self._failed(backend, started, error)
                continue
            if isawaitable(result):
                return self._waited(backend, started, result)
            return self._succeeded(backend, started, result)
        raise self._error()

    async def _waited(self, backend: BackendType, started: float, pending: Any) -> Any:
        try:
            result = await pending
        except Exception as error:
            self._failed(backend, started, error)
        else:
            return self._succeeded(backend, started, result)
        following = self.go()
        return await following if isawaitable(following) else following

    def _failed(self, backend: BackendType, started: float, error: Exception) -> None:
        self._errors[backend] = error
        self._note(backend, perf_counter() - started, True)

    def _succeeded(self, backend: BackendType, started: float, result: Any) -> Any:
        self._note(backend, perf_counter() - started, False)
        if self._errors:
            self._log(backend, f"the fallback after {len(self._errors)} failed")
        return result

    def _error(self) -> Exception:
        if len(self._errors) == 1:
            return next(iter(self._errors.values()))
        self._log(None, "all failed")
        error = BackendsFailedError(self._name, {b.tier: e for b, e in self._errors.items()})
        error.__cause__ = ExceptionGroup(self._name, list(self._errors.values()))
        return error

    def _log(self, chosen: BackendType | None, reason: str) -> None:
        failed = [Candidate(b.tier, f"{type(e).__name__}: {e}") for b, e in self._errors.items()]
        tier = chosen.tier if chosen else None
        self._decisions.append(Decision(self._name, tuple(failed), tier, reason))
