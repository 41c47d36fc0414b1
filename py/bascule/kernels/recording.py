"""Record calls of kernels once, and run them together as often as wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from typing import Self

from bascule.base.arguments import whole_number
from bascule.errors import InputError
from bascule.kernels.buffer import BufferPool, Closable
from bascule.kernels.compiled import Launch, RecordedLaunches
from bascule.kernels.kernel_device import KernelDevice

_MAX_TIMES = 10_000

Step = Callable[[], Awaitable[None]]


class Recording:
    """Recorded calls of kernels: `with device.record() as tape:`, then `await tape.run()`.

    Calls that are awaited in the block check and compile, and run with each `tape.run()`, in order.
    Their outputs are buffers; arrays among their inputs are copied to the device once.
    """

    def __init__(self, device: KernelDevice) -> None:
        self._device = device
        self._pool = device.pool  # since the first call
        self._launches: list[Launch] = []
        self._steps: list[Step] = []
        self._held: list[Closable] = []
        self._kernels: list[object] = []  # without them their pipelines would be dropped
        self._recorded: RecordedLaunches | None = None
        self._token: Token[Recording | None] | None = None
        self._closed = False

    def __len__(self) -> int:
        """The number of calls."""
        return len(self._launches) + len(self._steps)

    def __enter__(self) -> Self:
        if self._token is not None or len(self):
            raise InputError("record", "a new recording", "one that was used", hint=_AGAIN)
        self._token = RECORDING.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            RECORDING.reset(self._token)
            self._token = None

    @property
    def pool(self) -> BufferPool:
        """The memory that its calls use."""
        if not len(self):  # the device may have been opened again
            self._pool = self._device.pool
        return self._pool

    def add(self, call: Launch | Step, operands: Closable, kernel: object) -> None:
        """Add a call of a kernel, and its operands."""
        if isinstance(call, Launch):
            self._launches.append(call)
        else:
            self._steps.append(call)
        self._held.append(operands)
        self._kernels.append(kernel)

    async def run(self, times: int = 1) -> None:
        """Queue all calls in one submission, `times` times; reading a buffer waits for them.

        InputError in the block that records, after `close`, and if the device was closed;
        DeviceLostError if it was lost: record again.
        """
        times = whole_number("tape.run, times", times, 1, _MAX_TIMES)
        if self._closed or self._token is not None:
            result = "one that was closed" if self._closed else "one that still records"
            raise InputError("tape.run", "a recording that is complete", result, hint=_AGAIN)
        self._pool.check_open("tape.run")
        async with self._pool.backend.turns.turn():
            if self._launches:
                if self._recorded is None:
                    gpu = self._launches[0].shader.gpu
                    self._recorded = RecordedLaunches(gpu, self._launches)
                    self._pool.when_dropped(self, self._recorded)
                self._recorded.run(times)
            for _ in range(times if self._steps else 0):
                for step in self._steps:
                    await step()

    def close(self) -> None:
        """Free what it holds on the device. Closing twice is fine."""
        self._closed = True
        recorded, held = self._recorded, self._held
        self._launches, self._steps, self._held, self._recorded = [], [], [], None
        self._kernels = []

        def free() -> None:
            for item in held if recorded is None else (recorded, *held):
                item.close()

        self._pool.backend.turns.when_free(free)


_AGAIN = "Record with `with device.record() as tape:`, then `await tape.run()`."

# The recording whose block is running.
RECORDING: ContextVar[Recording | None] = ContextVar("RECORDING", default=None)
