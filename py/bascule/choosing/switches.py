"""Environment variables that choose tiers.

    BASCULE_FORCE_<NAME>=1      use that tier and no other
    BASCULE_DISABLE_<NAME>=1    never use it
    BASCULE_PLATFORM_NAME=cpu   no GPU (JAX_PLATFORM_NAME=cpu works, too)
    BASCULE_MEMORY_MB=1500      memory for models, in MiB; by default what is free,
                                in a page half the machine's memory, or 1 GiB if unknown

<NAME> is any name of `BackendType`: WEBGPU, WEBGPU_LIMITED, WEBNN, WASM, CPU, or JAX, NUMBA, TORCH,
NUMPY. "", 0, false, no and off switch off. The pages of web/ take them from their address
(index.html?BASCULE_DISABLE_WEBGPU=1); in your own page set them in Python's os.environ. An unknown
name that begins with BASCULE_ gets a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache

from bascule.choosing.workload import BackendType
from bascule.errors import InputError

_PREFIX = "BASCULE_"
_TIER_NAMES = tuple(BackendType.__members__)
# All environment variables of the package. web/switches.js has those of a page's address.
KNOWN_NAMES = frozenset(
    {
        "BASCULE_BRIDGE",
        "BASCULE_CACHE",
        "BASCULE_CACHE_MOST_GB",
        "BASCULE_MEMORY_MB",
        "BASCULE_MODELS",
        "BASCULE_PLATFORM_NAME",
        "BASCULE_PROVE",
        "BASCULE_REMEMBERED",
        "BASCULE_TEST_SEED",  # of Bascule's own tests
        "BASCULE_WEIGHTS",
        *(f"BASCULE_{verb}_{name}" for verb in ("FORCE", "DISABLE") for name in _TIER_NAMES),
    }
)
_OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Switches:
    """`forced` and its switch's name; reasons of disabled tiers; bytes that may be used."""

    forced: BackendType | None = None
    forced_by: str = ""
    disabled: Mapping[BackendType, str] = field(default_factory=dict[BackendType, str])
    memory_nbytes: int | None = None

    @property
    def forced_reason(self) -> str:
        """Return why "auto" used the forced tier; empty without one."""
        reason = f"auto took {self.forced.tier}: " if self.forced else ""
        return reason and f"{reason}{self.forced_by} asks for it"

    def refuses(self, backend: BackendType) -> str:
        """Return why that backend may not run; empty if it may."""
        if self.forced is not None and backend is not self.forced:
            return f"{self.forced_by} asks for {self.forced.tier}"
        return self.disabled.get(backend, "")


def read_switches(environment: Mapping[str, str] | None = None) -> Switches:
    """Read the switches from the environment; InputError if two contradict each other."""
    if environment is None:
        warn_of_unknown_names()
    variables = os.environ if environment is None else environment
    forced: dict[BackendType, str] = {}
    disabled: dict[BackendType, str] = {}
    for name in ("BASCULE_PLATFORM_NAME", "JAX_PLATFORM_NAME"):
        if variables.get(name, "").lower() == "cpu":
            disabled |= {b: f"{name} says cpu" for b in BackendType if b.is_gpu}
    for name, backend in BackendType.__members__.items():
        if _is_on(variables, f"BASCULE_FORCE_{name}"):
            forced.setdefault(backend, f"BASCULE_FORCE_{name}")
        if _is_on(variables, f"BASCULE_DISABLE_{name}"):
            disabled.setdefault(backend, f"BASCULE_DISABLE_{name} is set")
    if len(forced) > 1:
        raise InputError("environment", "at most one forced tier", " and ".join(forced.values()))
    backend, switch = next(iter(forced.items()), (None, ""))
    if backend in disabled:
        raise InputError("environment", f"{switch} or its contrary", f"{disabled[backend]}, too")
    return Switches(backend, switch, disabled, _memory(variables.get("BASCULE_MEMORY_MB", "")))


def warn_of_unknown_names() -> None:
    """Warn, once per process, of each unknown environment variable of Bascule's prefix."""
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in KNOWN_NAMES:
            _warn_once(name)


@cache
def _warn_once(name: str) -> None:
    said = f"The environment variable {name[:80]} has no effect: Bascule has none of that name."
    # Compared without the prefix, which all of them share.
    stems = [known.removeprefix(_PREFIX) for known in sorted(KNOWN_NAMES)]
    near = get_close_matches(name[:80].removeprefix(_PREFIX), stems, n=1)
    hint = f" Did you mean {_PREFIX}{near[0]}?" if near else ""
    warnings.warn(said + hint, stacklevel=4)


def _is_on(variables: Mapping[str, str], name: str) -> bool:
    return variables.get(name, "").strip().lower() not in _OFF


def _memory(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        result = float(text)
    except ValueError:
        result = 0.0
    if not 0 < result < 1e9:
        raise InputError("BASCULE_MEMORY_MB", "a number of MiB above 0", repr(text))
    return int(result * (1 << 20))
