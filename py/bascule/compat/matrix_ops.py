"""Matrix products by the name that BLAS gives them."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import need_numpy, np
from bascule.base.waiting import start
from bascule.compat.own_device import OwnDevice
from bascule.device.device import Device
from bascule.errors import InputError


class MatrixOps:
    """`gemm` on `device`, else on one that is opened at its first use; see `RecoveryManager`."""

    def __init__(self, device: Device | None = None) -> None:
        self._device = OwnDevice(device)

    def gemm(self, a: Any, b: Any, output: Any = None) -> Any:
        """output = a @ b, of (M, K) and (K, N); gives the output.

        Operands are arrays or `DeviceBuffer`s; the output is a buffer, or an array that is filled,
        or where there is none a new array. This gives an awaitable where an event loop runs, and
        works to the end elsewhere. InputError for shapes that do not fit.
        """
        return start(self._gemm(a, b, output))

    def close(self) -> None:
        """Close the device, if it opened one."""
        self._device.close()

    async def _gemm(self, a: Any, b: Any, output: Any) -> Any:
        await need_numpy("gemm", "Load numpy into this Pyodide first.")
        ops = (await self._device.get()).ops
        if output is None or isinstance(output, np.ndarray):
            result = await (await ops.matmul(a, b)).numpy()
            if output is None:
                return result
            if output.shape != result.shape:
                raise InputError("gemm, output", f"shape {result.shape}", f"{output.shape}")
            output[...] = result
            return output
        return await ops.matmul(a, b, out=output)
