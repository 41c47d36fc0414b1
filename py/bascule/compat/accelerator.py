"""The accelerator of this machine: number types, speed, and the largest model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter

from bascule.base.arguments import did_you_mean, is_number
from bascule.base.arrays import need_numpy, np
from bascule.device.device import Device, open_device
from bascule.errors import InputError, TierUnavailableError
from bascule.machine.capabilities import Capabilities
from bascule.machine.requirements import share_of

_MIB = 1 << 20
_SIDE = 256
_TIMES = 3


class ANEDataType(StrEnum):
    """Number types that an accelerator may compute with."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    INT32 = "int32"
    UINT32 = "uint32"
    # Spelled as in the guide that the name comes from.
    Float32 = "float32"
    Float16 = "float16"
    Int8 = "int8"
    UInt8 = "uint8"
    Int16 = "int16"


@dataclass(frozen=True, slots=True)
class ANECapabilities:
    """An accelerator's record; None is unknown and meets no requirement.

    No page reaches the Apple Neural Engine: the record is that of the device that computes here.
    `operations_per_second` counts multiplications and additions of a short float32 matrix product
    that ran there; `largest_model_nbytes` follows from the memory budget.
    """

    name: str
    operations_per_second: float | None = None
    data_types: frozenset[str] = frozenset()
    largest_model_nbytes: int | None = None

    def meets_requirements(
        self,
        required_ops_per_second: float,
        required_data_types: Iterable[ANEDataType | str],
        required_model_size_mb: float,
    ) -> bool:
        """Whether nothing is missing; the size is in MiB. InputError for invalid arguments."""
        return not self.get_requirement_mismatch(
            required_ops_per_second, required_data_types, required_model_size_mb
        )

    def get_requirement_mismatch(
        self,
        required_ops_per_second: float,
        required_data_types: Iterable[ANEDataType | str],
        required_model_size_mb: float,
    ) -> list[str]:
        """Return a sentence for each unmet requirement: what is required, and what is there."""
        needs = _checked(required_ops_per_second, required_data_types, required_model_size_mb)
        lacks: list[str] = []
        if share_of(self.operations_per_second, needs.ops) < 1:
            result = _known(self.operations_per_second)
            lacks.append(f"operations a second: required {needs.ops:,.0f}, found {result}")
        for name in sorted(needs.types - self.data_types):
            lacks.append(f"data type {name}: required, found {sorted(self.data_types)}")
        if share_of(self.largest_model_nbytes, needs.nbytes) < 1:
            result = _known(self.largest_model_nbytes, _MIB)
            lacks.append(f"model size in MiB: required {needs.nbytes / _MIB:,.0f}, found {result}")
        return lacks

    def compatibility_score(
        self,
        required_ops_per_second: float,
        required_data_types: Iterable[ANEDataType | str],
        required_model_size_mb: float,
    ) -> float:
        """Return the mean share of the requirements that is met, 0.0 to 1.0; 1.0 if all are."""
        needs = _checked(required_ops_per_second, required_data_types, required_model_size_mb)
        shares = [float(name in self.data_types) for name in needs.types]
        shares.append(share_of(self.operations_per_second, needs.ops))
        shares.append(share_of(self.largest_model_nbytes, needs.nbytes))
        return sum(shares) / len(shares)


@dataclass(frozen=True, slots=True)
class _Needs:
    ops: float
    types: frozenset[str]
    nbytes: float


async def measure_operations(tier: str) -> tuple[float, str]:
    """Time a short matrix product on a tier; return operations per second, and the device's name.

    Data are already on the device, and the product is read back: the shortest of a few times
    counts. TierUnavailableError if the tier does not work, or its numbers are wrong.
    """
    await need_numpy("measure_operations", "Load numpy into this Pyodide first.")
    async with await open_device(tier) as device:
        return await _timed_product(device), device.device_name


async def _timed_product(device: Device) -> float:
    a = np.ones((_SIDE, _SIDE), np.float32)
    x, y = await device.buffer(a), await device.buffer(2 * a)
    times: list[float] = []
    for _ in range(1 + _TIMES):  # the first compiles
        began = perf_counter()
        result = await (await device.ops.matmul(x, y)).numpy()
        times.append(max(perf_counter() - began, 1e-6))
        if not np.allclose(result, 2 * _SIDE):
            why = f"{device.device_name} gave a wrong product of matrices"
            raise TierUnavailableError(device.tier, why)
    return 2 * _SIDE**3 / min(times[1:])


def accelerator_from(machine: Capabilities, operations_per_second: float | None) -> ANECapabilities:
    """Make the record from what was probed."""
    types = machine.data_types or frozenset({"float32", "int32"})
    return ANECapabilities(
        machine.adapter_name if machine.has_adapter else "the CPU",
        operations_per_second,
        types,
        machine.memory_budget_nbytes,
    )


def _checked(ops: float, types: Iterable[ANEDataType | str], size_mb: float) -> _Needs:
    for name, value in (("required_ops_per_second", ops), ("required_model_size_mb", size_mb)):
        if not is_number(value) or not 0 <= value < 1e30:
            raise InputError(name, "a number of at least 0", repr(value))
    if isinstance(types, str):
        raise InputError("required_data_types", "a list of data types", repr(types))
    known = [each.value for each in ANEDataType]
    for each in (wanted := [str(each) for each in types]):
        if each not in known:
            hint = did_you_mean(each, known)
            raise InputError("required_data_types", f"some of {known}", repr(each), hint=hint)
    return _Needs(float(ops), frozenset(wanted), size_mb * _MIB)


def _known(value: float | None, unit: int = 1) -> str:
    return "unknown" if value is None else f"{value / unit:,.0f}"
