"""The device of kernels that were given none: that of their buffers, else one opened once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bascule.base.turns import CrossLoopLock
from bascule.device.buffer import DeviceBuffer

if TYPE_CHECKING:
    from bascule.device.device import Device

_SHADERS = ("webgpu", "webgpu-limited")
_ANY = (*_SHADERS, "wasm", "cpu")

_opening = CrossLoopLock()
_opened: dict[tuple[str, ...], Device] = {}


async def device_for(
    given: Device | None, arguments: Iterable[Any], *, has_reference: bool
) -> Device:
    """The device that was given, else that of a buffer among the arguments, else one that stays.

    With a reference the wasm and cpu tiers will do where there is no WebGPU.
    TierUnavailableError where no tier serves.
    """
    if given is not None:
        return given
    for argument in arguments:
        if isinstance(argument, DeviceBuffer) and argument.device is not None:
            return argument.device
    from bascule.device.device import open_device

    tiers = _ANY if has_reference else _SHADERS
    async with _opening.turn():
        held = _opened.get(tiers)
        if held is None or held.closed:
            held = _opened[tiers] = await open_device(tiers)
        return held
