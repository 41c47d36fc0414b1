"""How many workgroups a call launches: by a number of invocations, or of workgroups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.errors import InputError, LimitError
from bascule.kernels.shader import Groups, Shader

_WHOLE = "a whole number, or up to three of them"


def groups_for(
    shader: Shader,
    constants: Mapping[str, float],
    count: Any,
    groups: Any,
    max_groups: int,
) -> Groups:
    """Return the workgroups of a call, at most `max_groups` in each dimension.

    `count` is divided by the workgroup size, rounded up. A one-dimensional count that is too large
    is folded into y and z if the entry point reads `num_workgroups`, by which it can compute its
    index. InputError unless exactly one of them is given; LimitError past the limit.
    """
    if (count is None) == (groups is None):
        result = "both" if groups is not None else "neither"
        hint = "count is in invocations, groups in workgroups."
        raise InputError(shader.label, "count= or groups=", result, hint=hint)
    if groups is not None:
        return _checked(shader, _numbers(shader, "groups", groups), max_groups)
    size = shader.workgroup_size(constants)
    if size is None:
        expected = "a workgroup size that is made of whole numbers and overrides"
        raise InputError(shader.label, expected, "another one", hint="Launch it with groups=.")
    counts = _numbers(shader, "count", count)
    x, y, z = (-(-n // lanes) for n, lanes in zip(counts, size, strict=True))
    if x > max_groups and y == z == 1 and shader.uses_num_workgroups and size[1] == size[2] == 1:
        return _folded(shader, x, max_groups)
    return _checked(shader, (x, y, z), max_groups)


def folded(groups: int, max_groups: int) -> Groups:
    """Return at least that many workgroups, distributed over the dimensions."""
    if groups <= max_groups:
        return groups, 1, 1
    rows = -(-groups // max_groups)
    if rows <= max_groups:
        return -(-groups // rows), rows, 1
    layers = -(-rows // max_groups)
    return max_groups, -(-rows // layers), layers


def _folded(shader: Shader, groups: int, max_groups: int) -> Groups:
    if groups > max_groups**3:
        raise _too_many(shader, groups, max_groups)
    return folded(groups, max_groups)


def _numbers(shader: Shader, what: str, value: Any) -> Groups:
    listed: Any = value.tolist() if hasattr(value, "tolist") else value
    items: list[Any] = list(listed) if isinstance(listed, tuple | list) else [listed]
    sound = [n for n in items if isinstance(n, int) and not isinstance(n, bool) and n >= 0]
    if not 1 <= len(items) <= 3 or len(sound) != len(items):
        raise InputError(f"{shader.label}, {what}", _WHOLE, repr(value)[:80])
    x, y, z = (*sound, 1, 1)[:3]
    return x, y, z


def _checked(shader: Shader, groups: Groups, max_groups: int) -> Groups:
    if max(groups) > max_groups:
        raise _too_many(shader, max(groups), max_groups)
    return groups


def _too_many(shader: Shader, groups: int, max_groups: int) -> LimitError:
    hint = (
        "Let the entry point take `@builtin(num_workgroups) n: vec3u`, and compute its index as "
        "id.x + SIZE * n.x * (id.y + n.y * id.z) of the global id and the workgroup's size: "
        "count= is then folded into y and z. Or use more dimensions, or larger workgroups."
    )
    limit = f"a device runs {max_groups:,} in one dimension"
    return LimitError(f"A launch of {shader.label}", f"{groups:,} workgroups", limit, hint=hint)
