"""Matrix products by their BLAS name."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import need_numpy, np
from bascule.base.waiting import start
from bascule.compat.own_device import OwnDevice
from bascule.device.device import Device
from bascule.errors import InputError


class MatrixOps:
    """`gemm` on `device`, or on one that is opened at first use; see `RecoveryManager`."""

    def __init__(self, device: Device | None = None) -> None:
        self._device = OwnDevice(device)

    def gemm(self, a: Any, b: Any, output: Any = None) -> Any:
        """Compute output = a @ b, of (M, K) and (K, N), and return the output.

        Operands are arrays or `DeviceBuffer`s; the output is a buffer, or an array that is filled,
        or by default a new array. Returns an awaitable if an event loop is running, and runs to
        completion otherwise. InputError for shapes that do not fit.
        """
        return start(self._gemm(a, b, output))

    def close(self) -> None:
        """Close the device, if it was opened here."""
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
