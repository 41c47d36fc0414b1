"""The errors that Bascule raises.

Each is a `BasculeError` with a stable `category`, its facts as fields, and a message that says what
happened and what to try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class BasculeError(Exception):
    """Base class of Bascule's errors.

    `category` is stable and meant for programs; `what` and `hint` are sentences for people.
    """

    category = "bascule"

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what} {hint}" if hint else what)


class InputError(BasculeError):
    """An argument has the wrong type, shape or value."""

    category = "input"

    def __init__(self, where: str, expected: str, found: str, *, hint: str = "") -> None:
        self.where = where
        self.expected = expected
        self.found = found
        super().__init__(f"{where}: expected {expected}, found {found}.", hint=hint)


class ContextLengthError(BasculeError):
    """A text does not fit a model's context; counts are tokens."""

    category = "context-length"

    def __init__(self, n_tokens: int, limit: int) -> None:
        self.n_tokens = n_tokens
        self.limit = limit
        hint = 'Shorten the text, or drop old tokens with overflow="slide".'
        super().__init__(f"{n_tokens:,} tokens do not fit a context of {limit:,}.", hint=hint)


class ModelNotFoundError(BasculeError):
    """There is no model of that name, or no such folder or URL."""

    category = "model-not-found"

    def __init__(self, model: str, reason: str, *, hint: str = "") -> None:
        self.model = model
        self.reason = reason
        super().__init__(f"Model {model!r} was not found: {reason}.", hint=hint)


class ModelFileError(BasculeError):
    """A model file is damaged, malicious or of another kind than its name says."""

    category = "model-file"
    _HINT = "Copy or fetch the model's files again, or save them again."

    def __init__(self, file: str, problem: str, *, hint: str = "") -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file}: {problem}.", hint=hint or self._HINT)

    def advise_pull(self, model: str) -> None:
        """Add how to fetch a known model again, unless the error has a hint."""
        if self.hint == self._HINT:
            self.hint = f"Fetch the model again: `bascule pull --force {model}`."
            self.args = (f"{self.what} {self.hint}",)


class UnsupportedModelError(BasculeError):
    """The model is sound, but Bascule does not support its kind."""

    category = "unsupported-model"

    def __init__(self, model: str, problem: str, *, hint: str = "") -> None:
        self.model = model
        self.problem = problem
        super().__init__(f"{model} cannot be run: {problem}.", hint=hint)


class SourceError(BasculeError):
    """Reading a file or fetching it from the network failed."""

    category = "source"

    def __init__(
        self, location: str, problem: str, *, offset: int | None = None, hint: str = ""
    ) -> None:
        self.location = location
        self.problem = problem
        self.offset = offset
        at = "" if offset is None else f" at byte {offset:,}"
        hint = hint or "Check the connection or the path, then load again."
        super().__init__(f"Reading {location}{at} failed: {problem}.", hint=hint)


class FileMissingError(SourceError):
    """The folder or server has no such file."""

    category = "file-missing"

    def __init__(self, location: str, *, hint: str = "") -> None:
        super().__init__(location, "there is no such file", hint=hint)


class FileChangedError(SourceError):
    """The file on the server changed while it was being read."""

    category = "changed"

    def __init__(self, location: str, problem: str, *, offset: int | None = None) -> None:
        hint = "Load again; if that does not help, the server sends different files under one name."
        super().__init__(location, problem, offset=offset, hint=hint)


class HashMismatchError(ModelFileError):
    """A file's bytes do not have the hash of the manifest, the registry or the first load."""

    category = "corrupt"


class TierUnavailableError(BasculeError):
    """The requested tier does not work on this machine."""

    category = "tier-unavailable"

    def __init__(self, tier: str, reason: str, *, hint: str = "") -> None:
        self.tier = tier
        self.reason = reason
        hint = hint or 'Use tier="auto" to take the best tier that works here.'
        super().__init__(f"Tier {tier!r} is not available: {reason}.", hint=hint)


@dataclass(frozen=True, slots=True)
class CapabilityMismatch:
    """One missing capability, with a description."""

    capability: str
    required: str
    found: str
    hint: str

    @property
    def what(self) -> str:
        """The description without the hint."""
        return f"{self.capability}: required {self.required}, found {self.found}"

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}"


class CapabilityMismatchError(BasculeError):
    """The machine lacks what an operation needs; `mismatches` describes each missing capability."""

    category = "capability-mismatch"

    def __init__(self, device: str, mismatches: Sequence[CapabilityMismatch]) -> None:
        self.device = device
        self.mismatches = tuple(mismatches)
        detail = "; ".join(mismatch.what for mismatch in mismatches)
        hints = dict.fromkeys(mismatch.hint for mismatch in mismatches)  # each once, in order
        super().__init__(f"{device} lacks what is required. {detail}.", hint=" ".join(hints))


class LimitError(BasculeError):
    """Something exceeds a limit of the device and cannot be divided; `limit` is that limit."""

    category = "limit"

    def __init__(self, what: str, needs: str, limit: str, *, hint: str = "") -> None:
        self.limited = what
        self.needs = needs
        self.limit = limit
        hint = hint or 'Use tier="cpu" or "wasm", which have no such limit.'
        super().__init__(f"{what} needs {needs}, and {limit}.", hint=hint)


class BudgetError(LimitError):
    """A model does not fit the memory budget of its pool; all three are bytes."""

    category = "budget"

    def __init__(
        self,
        model: str,
        needed_nbytes: int,
        free_nbytes: int,
        budget_nbytes: int,
        *,
        hint: str = "",
    ) -> None:
        self.model = model
        self.needed_nbytes = needed_nbytes
        self.free_nbytes = free_nbytes
        self.budget_nbytes = budget_nbytes
        hint = hint or (
            "Give the pool a larger budget_nbytes, load the model with quantize=8 or quantize=4, "
            "or use a shorter max_length."
        )
        limit = f"{free_nbytes:,} of the pool's budget of {budget_nbytes:,} bytes are free"
        super().__init__(model, f"{needed_nbytes:,} bytes", limit, hint=hint)


class BackendsFailedError(BasculeError):
    """An operation failed on a backend and on every fallback; `errors` has one for each."""

    category = "backends-failed"

    def __init__(self, operation: str, errors: Mapping[str, Exception]) -> None:
        self.operation = operation
        self.errors = dict(errors)
        detail = "; ".join(f"{name}: {type(e).__name__}: {e}" for name, e in self.errors.items())
        hint = "What they have in common is most likely the cause."
        super().__init__(f"{operation!r} failed on every backend. {detail}", hint=hint)


class NotFiniteError(BasculeError):
    """A result contains NaN or infinity, and is withheld."""

    category = "not-finite"

    def __init__(self, model: str, where: str, tier: str) -> None:
        self.model = model
        self.where = where
        self.tier = tier
        hint = (
            "Load the model again, for its weights may be damaged where they lie now; if it comes "
            'back, take another tier (tier="wasm" or tier="cpu") and report this device.'
        )
        super().__init__(f"{model} on tier {tier!r}: {where} is not finite.", hint=hint)


class HostMemoryError(BasculeError, MemoryError):
    """The process, or in a page its WebAssembly heap, is out of memory (`nbytes` None: unknown)."""

    category = "memory"

    def __init__(self, asked: str, nbytes: int | None = None) -> None:
        self.asked = asked
        self.nbytes = nbytes
        detail = "" if nbytes is None else f" of {nbytes:,} bytes"
        hint = (
            "Close other models and programs (in a browser: other tabs), or load the model with "
            "quantize=8 or quantize=4."
        )
        super().__init__(f"There is not enough memory for {asked}{detail}.", hint=hint)


class GpuError(BasculeError):
    """The GPU rejected a command; `label` is the shader file, if it is known."""

    category = "gpu"

    def __init__(self, verb: str, problem: str, *, label: str = "", hint: str = "") -> None:
        self.verb = verb
        self.problem = problem
        self.label = label
        of = f" ({label})" if label and label not in problem else ""
        super().__init__(f"GPU {verb} failed{of}: {problem}", hint=hint)


class GpuOutOfMemoryError(GpuError):
    """The device has no memory for the `nbytes` bytes (None: unknown) that were `asked` for."""

    category = "gpu-memory"

    def __init__(self, asked: str, nbytes: int | None = None, *, detail: str = "") -> None:
        self.asked = asked
        self.nbytes = nbytes
        size = "" if nbytes is None else f" of {nbytes:,} bytes"
        hint = (
            "Close other models (in a browser: other tabs), run fewer or shorter texts at once, "
            "use a shorter max_length, load the model with quantize=8 or quantize=4, or use "
            'tier="wasm".'
        )
        words = f" ({detail})" if detail else ""
        super().__init__(asked, f"out of memory for a buffer{size}{words}.", hint=hint)


class ShaderError(GpuError):
    """A shader did not compile; `line` and `column` count from 1 in that .wgsl file.

    `column` is 0 if the compiler does not report it.
    """

    category = "shader"

    def __init__(self, label: str, messages: Sequence[tuple[int, str]], *, column: int = 0) -> None:
        self.messages = tuple(messages)
        self.line = messages[0][0] if messages else 0
        self.column = column
        places = [f"{line}" for line, _ in self.messages]
        if column and places:
            places[0] += f":{column}"
        detail = "; ".join(
            f"{label}:{place}: {text}"
            for place, (_, text) in zip(places, self.messages, strict=True)
        )
        super().__init__("pipeline", detail or f"{label} did not compile.", label=label)


class WrongResultError(GpuError):
    """A device computes wrong numbers, whatever is tried.

    `where` is the computation, `found` its fault; `f16_cache`: it used a float16 KV cache, and may
    be right with a float32 one.
    """

    category = "wrong-result"

    def __init__(self, where: str, found: str, *, f16_cache: bool = False) -> None:
        self.where = where
        self.found = found
        self.f16_cache = f16_cache
        hint = 'Use tier="auto" or "cpu", and update the graphics driver or the browser.'
        super().__init__("proof", f"{where} is wrong on this device ({found}).", hint=hint)


class DeviceLostError(GpuError):
    """The device was lost (driver reset, tab in the background, `destroy`)."""

    category = "device-lost"

    def __init__(self, reason: str, gone: str = "", *, hint: str = "") -> None:
        self.reason = reason
        self.gone = gone  # the array or buffer that was on it
        if gone:
            hint = hint or (
                "Make it again from numbers of your own: the next call opens the Device again. "
                "After a close open another one with bascule.open_device()."
            )
            super().__init__("device", f"{gone} was lost with its device ({reason}).", hint=hint)
            return
        hint = hint or (
            "Call it again: models, kernels and arrays open a lost device again, with new buffers. "
            "After a close open another one with bascule.open_device()."
        )
        super().__init__("device", f"the device was lost ({reason}).", hint=hint)


class WebNnError(BasculeError):
    """WebNN rejected a graph, or failed to run it."""

    category = "webnn"

    def __init__(self, verb: str, problem: str) -> None:
        self.verb = verb
        self.problem = problem
        hint = 'Use another tier: tier="auto" takes the best that works here.'
        super().__init__(f"WebNN could not {verb} a graph: {problem}.", hint=hint)


class SetupError(BasculeError):
    """Something around Bascule is missing or in the way (package, port, folder)."""

    category = "setup"
