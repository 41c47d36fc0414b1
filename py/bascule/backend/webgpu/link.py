"""Link WGSL: a kernel, the parts in its slots, generated constants. No text is ever rewritten.

The kernel's own text comes first and directives share its first line, so a compiler's line numbers
are those of the kernel's file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from bascule.base import assets

_BINDING = re.compile(r"@group\(0\)\s*@binding\((\d+)\)\s*var<(\w+)(?:\s*,\s*(\w+))?>\s*(\w+)")
_PARAMS = re.compile(r"struct\s+Params\s*\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\w+)")
_FORMATS = {"u32": "I", "i32": "i", "f32": "f"}
_LETTERS: Mapping[tuple[str, str | None], str] = {
    ("uniform", None): "u",
    ("storage", "read"): "r",
    ("storage", "read_write"): "w",
}


@dataclass(frozen=True, slots=True)
class Linked:
    """The linked text, with its bindings and parameters.

    `bindings` as `Gpu.pipeline` takes it; `params` lists the fields of `struct Params`.
    """

    wgsl: str
    bindings: str
    params: tuple[tuple[str, str], ...]

    def pack(self, values: Mapping[str, int | float]) -> bytes:
        """Pack the Params struct, padded to 16 bytes. KeyError if a field has no value."""
        layout = "<" + "".join(_FORMATS[kind] for _, kind in self.params)
        packed = struct.pack(layout, *(values[name] for name, _ in self.params))
        return packed.ljust((len(packed) + 15) & ~15, b"\0")

    def unpack(self, packed: bytes) -> tuple[int | float, ...]:
        """Undo `pack`: return a number for each field of `params`."""
        layout = "<" + "".join(_FORMATS[kind] for _, kind in self.params)
        return struct.unpack_from(layout, packed)


@cache
def link(
    kernel: str, parts: tuple[str, ...], consts: tuple[tuple[str, int], ...], enables: str
) -> Linked:
    """Link shaders/<kernel>.wgsl with shaders/parts/<part>.wgsl and `const NAME = value;` lines.

    `enables` is a space-separated list of extensions for the first line. Names come from the kernel
    table only.
    """
    texts = [assets.text(f"shaders/{kernel}.wgsl")]
    texts += [assets.text(f"shaders/parts/{part}.wgsl") for part in parts]
    texts += [f"const {name} = {value}u;\n" for name, value in consts]
    directives = "".join(f"enable {name}; " for name in enables.split())
    wgsl = directives + "".join(texts)
    return Linked(wgsl, _bindings(wgsl), _params(texts[0]))


def _bindings(wgsl: str) -> str:
    results = {int(at): _LETTERS[(space, access)] for at, space, access, _ in _groups(wgsl)}
    return "".join(results.get(at, "-") for at in range(max(results) + 1))


def _groups(wgsl: str) -> list[tuple[str, str, str | None, str]]:
    code = re.sub(r"//[^\n]*", "", wgsl)
    return [(m[1], m[2], m[3], m[4]) for m in _BINDING.finditer(code)]


def _params(kernel: str) -> tuple[tuple[str, str], ...]:
    match = _PARAMS.search(kernel)
    return tuple((m[1], m[2]) for m in _FIELD.finditer(match[1])) if match else ()
