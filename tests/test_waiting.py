"""`bascule.sync`: beside a running event loop, from several threads, interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
import pytest

import bascule
from bascule.base.at_once import IN_PLAIN_CODE, WouldWaitError, finish_now
from bascule.base.turns import CrossLoopLock
from bascule.base.waiting import cancel_from_anywhere
from bascule.errors import InputError, SetupError
from tests.goldens import TINY_BERT

TEXTS = ["w4 w5", "w6"]


async def beside_a_loop(plain: object) -> None:
    """Call a plain function in the thread of a loop that runs."""
    assert callable(plain)
    plain()


def test_sync_serves_plain_code_beside_a_running_loop() -> None:
    """As in a plain test next to Playwright's sync API, whose loop runs in the test's thread."""
    expected = asyncio.run(embed_once())

    def plain() -> None:
        model = bascule.sync(bascule.load(TINY_BERT, tier="cpu"))
        np.testing.assert_allclose(bascule.sync(model.embed(TEXTS)), expected, atol=1e-6)
        model.close()

    asyncio.run(beside_a_loop(plain))


async def embed_once() -> np.ndarray:
    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        return await model.embed(TEXTS)


def test_sync_from_several_threads_at_once() -> None:
    model = bascule.sync(bascule.load(TINY_BERT, tier="webgpu"))
    expected = bascule.sync(model.embed(TEXTS))
    start = threading.Barrier(6)

    def work(_: int) -> np.ndarray:
        start.wait()
        return bascule.sync(model.embed(TEXTS))

    with ThreadPoolExecutor(6) as pool:
        for result in pool.map(work, range(6)):
            np.testing.assert_allclose(result, expected, atol=1e-6)
    # What sync() made serves other loops, too.
    np.testing.assert_allclose(asyncio.run(model.embed(TEXTS)), expected, atol=1e-6)
    model.close()


def test_a_generator_is_read_piece_by_piece() -> None:
    async def count() -> object:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    numbers = count()
    assert [bascule.sync(anext(numbers)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        bascule.sync(anext(numbers))


class OwnError(Exception):
    pass


def test_exceptions_come_back_as_they_are() -> None:
    error = OwnError("mine")

    async def fail(raised: BaseException) -> None:
        await asyncio.sleep(0)
        raise raised

    with pytest.raises(OwnError) as caught:
        bascule.sync(fail(error))
    assert caught.value is error
    with pytest.raises(asyncio.CancelledError):
        bascule.sync(fail(asyncio.CancelledError()))
    with pytest.raises(SystemExit):
        bascule.sync(fail(SystemExit(3)))
    assert bascule.sync(asyncio.sleep(0, "the loop still runs")) == "the loop still runs"


def test_context_variables_are_the_caller_s() -> None:
    name = ContextVar("name", default="")
    name.set("caller")

    async def read() -> str:
        return name.get()

    assert bascule.sync(read()) == "caller"


def test_sync_inside_work_of_sync_is_refused() -> None:
    async def outer() -> None:
        bascule.sync(asyncio.sleep(0))

    with pytest.raises(SetupError, match="inside work that another sync"):
        bascule.sync(outer())

    async def in_a_thread() -> int:
        return await asyncio.to_thread(lambda: bascule.sync(asyncio.sleep(0, 7)))

    assert bascule.sync(in_a_thread()) == 7


def test_sync_refuses_what_it_cannot_await() -> None:
    with pytest.raises(InputError, match="sync: expected something to await"):
        bascule.sync([1])  # pyright: ignore[reportArgumentType]

    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        with pytest.raises(SetupError, match="a task of another event loop"):
            bascule.sync(task)
        await task

    asyncio.run(main())


def test_sync_that_stops_the_loop_it_waits_for_is_refused() -> None:
    async def main() -> None:
        async with await bascule.load(TINY_BERT, tier="cpu") as model:
            errors: list[SetupError] = []

            def progress(done: int, total: int) -> None:
                try:
                    bascule.sync(model.embed(["w1"]))
                except SetupError as error:
                    errors.append(error)

            await model.embed([" ".join(["w1"] * n) for n in (1, 40, 100)], progress=progress)
            assert any("the event loop that sync() has stopped" in str(e) for e in errors)

    asyncio.run(asyncio.wait_for(main(), 60))


INTERRUPTED = """
import asyncio, os, signal, threading, bascule

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start it ignored

async def work():
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)

try:
    bascule.sync(work())
except KeyboardInterrupt:
    print("interrupted", bascule.sync(asyncio.sleep(0, "again")))
"""


def test_ctrl_c_cancels_the_work_and_waits_for_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["cleaned up", "interrupted again"]
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    bascule.sync(asyncio.sleep(0))
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(bascule.sync(asyncio.sleep(0, 5)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_task_is_cancelled_from_another_thread() -> None:
    async def main() -> bool:
        task = asyncio.ensure_future(asyncio.sleep(60))
        await asyncio.to_thread(cancel_from_anywhere, task)
        await asyncio.wait([task], timeout=20)
        return task.cancelled()

    assert asyncio.run(main())


async def test_plain_code_finishes_what_need_not_wait_and_cancels_what_must() -> None:
    lock = CrossLoopLock()

    async def add(a: int, *, wait: bool = False) -> int:
        async with lock.turn():
            if wait:
                await asyncio.sleep(0)
            return a + (1 if IN_PLAIN_CODE.get() else 0)

    assert finish_now(add(2)) == 3
    with pytest.raises(WouldWaitError):
        finish_now(add(2, wait=True))
    assert not lock.locked()
    assert await add(2, wait=True) == 2
