"""Mutations of JSON values and of their text."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

Path = tuple[Any, ...]

DEEP: Any = 0
for _ in range(60):
    DEEP = [DEEP]
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 1000, 2**31, 2**53, 2**63, 2**64, 10**15, 10**290),
    *(10**400, 0.5, -0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 1e9),
    *("", "a", "\0", "é", "\ud800", "mean", "gelu", "../../etc/passwd", "x" * 5000, "a" * 300),
    *([], {}, [[]], [None], {"": None}, {"type": "x"}, [1] * 70_000, ["a"] * 9, DEEP),
)


def paths(value: Any, at: Path = (), depth: int = 0) -> list[Path]:
    """The places of a value, itself first; of long lists and objects a few at both ends."""
    results: list[Path] = [at]
    if depth < 8 and isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys if len(keys) <= 40 else keys[:20] + keys[-20:]:
            results += paths(value[key], (*at, key), depth + 1)
    return results


def mutated(value: Any, rng: Random) -> Any:
    """A copy with one to four changes."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        value = _changed(value, rng)
    return value


def _changed(value: Any, rng: Random) -> Any:
    result = paths(value)
    path = rng.choice(result[1:] or result)
    if not path:
        return rng.choice(ODD)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    here, last = parent[path[-1]], path[-1]
    match rng.randrange(8):
        case 0 | 1:
            parent[last] = copy.deepcopy(rng.choice(ODD))
        case 2 | 3:
            parent[last] = _near(here, rng)
        case 4:
            del parent[last]
        case 5:
            other = value
            for key in rng.choice(result):
                other = other[key]
            parent[last] = copy.deepcopy(other)
        case 6 if isinstance(parent, dict):
            parent[rng.choice(("", "a", "type", "__proto__", f"{last}x"))] = parent.pop(last)
        case 6:
            parent.insert(last, copy.deepcopy(here))
        case _:
            _swell(parent, last, rng)
    return value


def _near(here: Any, rng: Random) -> Any:
    """Something of the same type, which gets further than another type."""
    match here:
        case bool():
            return not here
        case int():
            if here.bit_length() > 2000:
                return 0
            return rng.choice((here + 1, here - 1, -here, here * 2, here * 1000, here**3, 0))
        case float():
            return rng.choice((-here, here * 1e6, 0.0, float("nan"), here / 3))
        case str():
            return rng.choice((here[1:], here + here, here.upper(), here + "\0", here * 99, "0"))
        case list():
            return rng.choice((here[1:], here + here, list(reversed(here)), here[:1]))
        case dict():
            return rng.choice(({k: here[k] for k in list(here)[1:]}, list(here.items()), {}))
        case _:
            return rng.choice(ODD)


def _swell(parent: Any, last: Any, rng: Random) -> None:
    """A lot of it, as far as a file may hold."""
    here, times = parent[last], rng.choice((100, 5000, 60_000))
    if _weight(here) * times > 1 << 22:
        return
    if isinstance(here, list) and here:
        parent[last] = (here * times)[:300_000]
    elif isinstance(here, dict):
        parent[last] = here | {f"{number:x}": number for number in range(times)}
    elif isinstance(here, str):
        parent[last] = here + "a" * times * 10
    else:
        parent[last] = [here] * times


def _weight(value: Any) -> int:
    """About how many bytes it takes in a file."""
    match value:
        case dict():
            return sum(len(key) + _weight(each) for key, each in value.items())
        case list():
            return 2 + sum(map(_weight, value))
        case str():
            return 2 + len(value)
        case _:
            return 4


def written(value: Any, rng: Random) -> bytes:
    """JSON text; now and then with a name twice or with damaged bytes."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))
    if rng.random() < 0.1 and text.startswith("{"):
        text = text.replace("{", '{"version": [], ', 1)
    data = text.encode("utf-8", "surrogatepass")
    return damaged(data, rng) if rng.random() < 0.15 else data


def damaged(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, cut out, put in or repeated."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + 1 :]
            case 2:
                data = data[:at] + data[at + rng.randrange(1, 99) :]
            case 3:
                data = data[:at] + rng.choice((b"[", b"{", b'"', b"\\", b"9" * 500)) + data[at:]
            case _:
                data = data[:at] + data[max(0, at - 50) : at] * rng.randrange(1, 2000) + data[at:]
    return data
