"""Mutations of a GGUF file's header, by what its parts mean."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from tests.fuzz.json_mutations import damaged
from tests.weights.gguf_files import ARRAY, BOOL, STRING, array, gguf_file, key, string, tensor

_LETTERS = dict(enumerate("BbHhIif???Qqd"))
_ODD_SIZES = (0, 1, 2, 3, 31, 33, 1000, 65_537, 2**31, 2**32 + 1, 2**53, 2**63, 2**64 - 1)

Keys = list[tuple[bytes, int, Any]]
Tensors = list[tuple[bytes, list[int], int, int]]


class Parts:
    """A sound file in parts: keys (name, type, value), tensors, and the bytes after them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 8
        n_tensors, n_keys = self._take("<QQ")
        self.keys: Keys = []
        for _ in range(n_keys):
            name = self._string()
            (code,) = self._take("<I")
            self.keys.append((name, code, self._value(code)))
        self.tensors: Tensors = []
        for _ in range(n_tensors):
            name = self._string()
            (n,) = self._take("<I")
            shape = list(self._take(f"<{n}Q"))
            self.tensors.append((name, shape, *self._take("<IQ")))
        self.rest = data[-(-self._at // 32) * 32 :]

    def _take(self, form: str) -> tuple[Any, ...]:
        result = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return result

    def _string(self) -> bytes:
        (nbytes,) = self._take("<Q")
        self._at += nbytes
        return self._data[self._at - nbytes : self._at]

    def _value(self, code: int) -> Any:
        if code == STRING:
            return self._string()
        if code == ARRAY:
            inner, count = self._take("<IQ")
            return inner, [self._value(inner) for _ in range(count)]
        return self._take(f"<{_LETTERS[code]}")[0]


def _packed(code: int, value: Any) -> bytes:
    if code == STRING:
        return string(value)
    if code == ARRAY:
        inner, items = value
        return array(inner, [_packed(inner, item) for item in items])
    letter = _LETTERS[code]
    if letter in "fd":
        return struct.pack(f"<{letter}", value)
    if code == BOOL:
        return bytes([int(value) & 0xFF])
    bits = 8 * struct.calcsize(letter)
    return (int(value) % (1 << bits)).to_bytes(bits // 8, "little")


def mutated_file(data: bytes, rng: Random) -> bytes:
    """A file with one to three changes in its header."""
    parts = Parts(data)
    counts: dict[str, int] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                _change_key(parts.keys, rng)
            case 4 | 5 | 6:
                _change_tensor(parts.tensors, rng)
            case 7:
                parts.keys.pop(rng.randrange(len(parts.keys))) if parts.keys else None
            case 8:
                where = rng.choice(("n_keys", "n_tensors", "version"))
                counts[where] = rng.choice(_ODD_SIZES) % (2**32 if where == "version" else 2**64)
            case _:
                parts.rest = parts.rest[: rng.randrange(len(parts.rest) + 1)]
    keys = [key(name, code, _packed(code, value)) for name, code, value in parts.keys]
    if rng.random() < 0.1:
        keys.append(key("a", STRING, string("b", rng.choice(_ODD_SIZES))))
    table = [tensor(*row) for row in parts.tensors]
    made = gguf_file(keys, table, parts.rest, **counts)
    head = len(made) - len(parts.rest)
    return damaged(made[:head], rng) + made[head:] if rng.random() < 0.1 else made


def _change_key(keys: Keys, rng: Random) -> None:
    if not keys:
        return
    at = rng.randrange(len(keys))
    name, code, value = keys[at]
    match rng.randrange(6):
        case 0:
            keys[at] = (rng.choice((b"", b"a", b"\xff", name + b"x", b"k" * 9999)), code, value)
        case 1:
            keys.append(keys[at])
        case 2:
            kind = rng.choice((0, 4, 5, 6, 7, 8, 10, 12))
            keys[at] = (name, kind, b"x" if kind == STRING else 1)
        case _:
            keys[at] = (name, code, _changed(code, value, rng))


def _changed(code: int, value: Any, rng: Random) -> Any:
    if code == STRING:
        odd = (b"", b"\xff", b"\xed\xa0\x80", b"{% for i in range(9) %}", b"a" * 100_000)
        return rng.choice((*odd, value + value, value[1:], value.upper()))
    if code == ARRAY:
        inner, items = value
        return inner, _changed_items(inner, list(items), rng)
    odd = (0, 1, 2, 3, 5, 7, 1000, 1 << 20, 2**31, 2**32 - 1, -1)
    return rng.choice((*odd, value * 2, value + 1, value * 1000))


def _changed_items(inner: int, items: list[Any], rng: Random) -> list[Any]:
    if not items:
        return items
    at = rng.randrange(len(items))
    match rng.randrange(7):
        case 0:
            return items[:at]
        case 1:
            return items * 2
        case 2:
            return (items * 5000)[:300_000]
        case 3:
            items[at] = items[rng.randrange(len(items))]
        case 4:
            rng.shuffle(items)
        case 5 if inner == STRING:
            return [*items, *(f"<|{number:0120}|>".encode() for number in range(17_000))]
        case _:
            items[at] = _changed(inner, items[at], rng)
    return items


def _change_tensor(tensors: Tensors, rng: Random) -> None:
    if not tensors:
        return
    at = rng.randrange(len(tensors))
    name, shape, kind, offset = tensors[at]
    match rng.randrange(7):
        case 0:
            tensors.pop(at)
        case 1:
            tensors.append(tensors[at])
        case 2:
            shape = [*shape]
            shape[rng.randrange(len(shape))] = rng.choice(_ODD_SIZES)
        case 3:
            shape = rng.choice(([], shape * 3, shape[::-1], shape[:1], [1, *shape]))
        case 4:
            kind = rng.choice((*range(40), 2**31))
        case 5:
            offset = rng.choice((*_ODD_SIZES, offset + 32, offset + 1))
        case _:
            name = rng.choice((b"", b"a" * 65, b"\xff", tensors[0][0], name + b"x"))
    if at < len(tensors):
        tensors[at] = (name, shape, kind, offset)
