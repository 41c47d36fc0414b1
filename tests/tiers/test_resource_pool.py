"""Models that share a device and a memory budget."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import ResourcePool
from bascule.compat import pool_queue, resource_pool
from bascule.errors import BudgetError, DeviceLostError, InputError, ModelNotFoundError
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny
from tests.weights.faulty import FaultyServer

LLAMA = tiny("tiny-q4_1").path
FEW: Any = {"max_new_tokens": 3, "sampling": GREEDY}
TEXTS = ["w4 w5", "w6"]
# The models hold 93 and 505 KB on webgpu, 77 and 420 KB on the other tiers: one of them at a time.
BUDGETS = {"webgpu": 560_000, "cpu": 450_000, "wasm": 450_000}
WEBGPU = BUDGETS["webgpu"]


async def embed(model: bascule.EmbeddingModel) -> Any:
    return (await model.embed(TEXTS)).tolist()


async def generate(model: bascule.LanguageModel) -> Any:
    return (await model.generate("Hi", **FEW)).ids


WORK: dict[Path, Callable[[Any], Any]] = {TINY_BERT: embed, LLAMA: generate}


async def alone(tier: str) -> dict[Path, Any]:
    """The answers of models that are loaded alone."""
    result = dict[Path, Any]()
    for path, work in WORK.items():
        async with await bascule.load(path, tier=tier) as model:
            result[path] = await work(model)
    return result


def lose(pool: ResourcePool) -> None:
    """Destroy the pool's device as a driver's reset does."""
    backend: Any = pool.device.backend  # type: ignore[union-attr]
    backend.gpu._device.destroy()


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_two_models_where_one_fits(tier: str) -> None:
    """200 requests in random order, a quarter of them cancelled and a few of them wrong."""
    expected = await alone(tier)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    async with ResourcePool(BUDGETS[tier], tier=tier, low_memory_mode=False) as pool:
        for _ in range(4):
            paths = [chance.choice(list(WORK)) for _ in range(50)]
            tasks = [asyncio.ensure_future(pool.run(path, WORK[path])) for path in paths]
            missing = asyncio.ensure_future(pool.run(TINY_BERT / "none", embed))
            for task in chance.sample(tasks, 12):
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
                task.cancel()
            result = await asyncio.gather(*tasks, return_exceptions=True)
            with pytest.raises(ModelNotFoundError):
                await missing
            for path, answer in zip(paths, result, strict=True):
                cancelled = isinstance(answer, asyncio.CancelledError)
                assert cancelled or answer == expected[path], answer
            assert sum(isinstance(answer, asyncio.CancelledError) for answer in result) <= 12
            stats = pool.stats
            assert len(pool.resident) == 1
            assert stats.peak_nbytes <= BUDGETS[tier]
        assert stats.loads == stats.evictions + 1
        assert 7 < stats.loads < 100  # requests to the resident model overtake others
        assert stats.hits + stats.loads >= 152
        assert pool.evict() == 1
        assert pool.device is not None
        assert set(pool.device.memory().by_kind) <= {"staging"}
    assert pool.device is None


async def test_a_model_that_exceeds_the_budget() -> None:
    await alone("webgpu")  # proves the kernels, whose trials take memory
    async with ResourcePool(450_000, tier="webgpu") as pool:
        rows = await pool.run(TINY_BERT, embed)
        with pytest.raises(BudgetError, match=r"needs [\d,]+ bytes, and [\d,]+ of the pool's") as e:
            await pool.run(LLAMA, generate)
        error = e.value
        assert error.budget_nbytes == 450_000
        assert 0 < error.free_nbytes <= 450_000 < error.needed_nbytes
        assert pool.resident == ()
        assert set(pool.device.memory().by_kind) <= {"staging"}  # type: ignore[union-attr]
        assert await pool.run(TINY_BERT, embed) == rows
        assert pool.stats.peak_nbytes <= 450_000


async def test_a_model_in_use_stays() -> None:
    """Requests to another model wait, and a caller that would wait for itself gets an error."""
    await alone("webgpu")  # proves the kernels, whose trials take memory
    async with ResourcePool(WEBGPU, tier="webgpu", low_memory_mode=False) as pool:
        in_use = asyncio.Event()

        async def later() -> Any:
            await in_use.wait()
            return await pool.run(LLAMA, generate)

        other = asyncio.ensure_future(later())
        async with pool.use(TINY_BERT) as model:
            in_use.set()
            rows = await embed(model)
            with pytest.raises(BudgetError, match="Leave the `async with`"):
                await pool.run(LLAMA, generate)
            assert await pool.run(TINY_BERT, embed) == rows  # within its own lease: no wait
            assert await embed(model) == rows
            assert not other.done()
            assert pool.evict() == 0
        assert await other
        assert pool.resident == (str(LLAMA),)


@pytest.mark.parametrize("low", [True, False])
async def test_low_memory_mode(low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ResourcePool(tier="cpu", low_memory_mode=low) as pool:
        await asyncio.gather(*(pool.run(path, work) for path, work in [*WORK.items()] * 3))
        assert len(pool.resident) == (0 if low else 2)
        assert (pool.stats.now_nbytes == 0) == low
        assert pool.stats.loads == 2  # one that a request waits for stays
    monkeypatch.setattr(resource_pool, "free_nbytes", lambda: (1 << 30) - low)
    async with ResourcePool(tier="cpu") as pool:
        await pool.run(TINY_BERT, embed)
        assert len(pool.resident) == (0 if low else 1)


async def test_a_lost_device() -> None:
    async with ResourcePool(WEBGPU, tier="webgpu", low_memory_mode=False) as pool:
        rows = await pool.run(TINY_BERT, embed)
        lose(pool)
        assert await pool.run(TINY_BERT, embed) == rows  # while nothing uses it
        async with pool.use(TINY_BERT) as model:
            lose(pool)
            with pytest.raises(DeviceLostError):
                await model.embed(TEXTS)
            assert await pool.run(TINY_BERT, embed) == rows  # on the next device

        async def losing(model: bascule.EmbeddingModel) -> Any:
            if pool.stats.devices_lost == 2:
                lose(pool)
            return await embed(model)

        result = await asyncio.gather(pool.run(TINY_BERT, losing), pool.run(TINY_BERT, embed))
        assert [*result] == [rows] * 2
        assert pool.stats.devices_lost == 3
        assert pool.stats.peak_nbytes <= WEBGPU
        assert not pool._retired


async def test_closing() -> None:
    pool = ResourcePool(BUDGETS["cpu"], tier="cpu")
    in_use = asyncio.Event()

    async def later() -> Any:
        await in_use.wait()
        return await pool.run(LLAMA, generate)

    waits = asyncio.ensure_future(later())
    async with pool.use(TINY_BERT) as model:
        held = pool.device
        in_use.set()
        await asyncio.sleep(0.05)
        assert not waits.done()
        pool.close()
        pool.close()
        with pytest.raises(InputError, match="closed"):
            await embed(model)
    with pytest.raises(InputError, match="closed"):
        await waits
    with pytest.raises(InputError, match="closed"):
        await pool.run(TINY_BERT, embed)
    assert held is not None
    assert held.memory().now_nbytes == 0
    assert "closed" in repr(pool)


@pytest.mark.parametrize("stage", ["config", "device", "weights", "ready"])
async def test_closing_while_a_model_loads(stage: str) -> None:
    pool = ResourcePool(tier="webgpu")
    devices: list[Any] = []

    def notify(progress: bascule.Progress) -> None:
        if progress.stage == stage:
            devices.append(pool.device)
            pool.close()

    with pytest.raises((InputError, DeviceLostError)):
        await pool.run(TINY_BERT, embed, progress=notify)
    assert devices[0].memory().now_nbytes == 0


async def test_options_make_another_model() -> None:
    async with ResourcePool(tier="cpu", low_memory_mode=False) as pool:
        async with pool.use(LLAMA) as long, pool.use(LLAMA, max_length=16) as short:
            assert isinstance(short, bascule.LanguageModel)
            assert long is not short
        assert pool.stats.loads == 2
        with pytest.raises(InputError, match="wait"):
            await pool.run(LLAMA, generate, wait=False)
    with pytest.raises(InputError, match="budget_nbytes"):
        ResourcePool(0)


async def test_no_request_is_overtaken_for_ever() -> None:
    """One that waits for room goes before those that come after eight others."""
    queue = pool_queue.RequestQueue[str](lambda key, _: key != "b", lambda _: KeyError())
    first = queue.loaded(await queue.get("a"), "a")
    waits = asyncio.ensure_future(queue.get("b"))
    await asyncio.sleep(0)
    hits = [asyncio.ensure_future(queue.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    done = [hit for hit in hits if hit.done()]
    assert done == hits[: pool_queue.MAX_OVERTAKEN]
    for lease in (first, *(hit.result().ready.result() for hit in done)):
        assert not waits.done()
        assert lease is not None
        queue.release(lease)
    assert (await waits).ready.result() is None
    queue.failed()
    for hit in hits[len(done) :]:
        lease = (await hit).ready.result()
        assert lease is not None
        queue.release(lease)
    assert not queue.is_busy


async def test_a_request_is_cancelled_as_its_turn_comes() -> None:
    """It is still in the queue then, and the turn is the next one's."""
    queue = pool_queue.RequestQueue[str](lambda key, used: not used, lambda _: KeyError())
    lease = queue.loaded(await queue.get("a"), "a")
    for key in ("a", "b"):  # one that would get a lease, and one that would load
        both = [asyncio.ensure_future(queue.get(name)) for name in ("c", key)]
        await asyncio.sleep(0)
        both[0].cancel()
        queue.release(lease)
        request = await asyncio.wait_for(both[1], 10)
        lease = request.ready.result() or queue.loaded(request, key)
        assert both[0].cancelled()
    queue.release(lease)
    assert not queue.is_busy


async def test_two_callers_that_wait_for_each_other() -> None:
    """Each uses a model and asks for a third, for which there is no room: one gets an error."""
    queue = pool_queue.RequestQueue[str](
        lambda key, used: key != "c" or len(used) < 2, lambda _: KeyError()
    )
    first, second = asyncio.Event(), asyncio.Event()

    async def caller(key: str, mine: asyncio.Event, other: asyncio.Event) -> str:
        lease = queue.loaded(await queue.get(key), key)
        queue.hold(lease)
        try:
            mine.set()
            await other.wait()
            if (await queue.get("c")).ready.result() is None:
                queue.failed()
            return "went on"
        except KeyError:
            return "stuck"
        finally:
            queue.release(lease)

    result = await asyncio.gather(caller("a", first, second), caller("b", second, first))
    assert sorted(result) == ["stuck", "went on"]
    assert not queue.is_busy
    assert np.all([not entry.leases for entry in queue.entries.values()])


@pytest.mark.parametrize("low", [False, True])
async def test_an_evicted_model_comes_back_from_the_cache(tmp_path: Path, low: bool) -> None:
    """With a budget for one model, and in low-memory mode without a budget, where each goes."""
    for name in ("one", "two"):
        shutil.copytree(TINY_BERT, tmp_path / name)
    budget = None if low else 90_000
    with FaultyServer(tmp_path) as server:
        urls = [f"{server.url}/{name}" for name in ("one", "two")]
        async with ResourcePool(budget, tier="cpu", low_memory_mode=low) as pool:
            rows = [await pool.run(url, embed) for url in urls]
            assert rows[0] == rows[1]
            assert all(server.count(f"{name}/model.safetensors") for name in ("one", "two"))
            server.reset_counts()
            for url in urls * 2:
                async with pool.use(url) as model:
                    assert await embed(model) == rows[0]
                    assert model.stats["network_nbytes"] == 0
                    assert model.stats["cached_nbytes"] > 70_000
            assert pool.stats.loads == 6
            assert pool.stats.evictions == (6 if low else 5)
            assert server.requests == []
            server.down()  # and without a network at all
            assert await pool.run(urls[0], embed) == rows[0]
            assert pool.stats.loads == 7


async def test_a_device_lost_while_requests_are_queued() -> None:
    """Two models of which one fits, one in use, others waiting: all are answered."""
    expected = await alone("webgpu")
    async with ResourcePool(WEBGPU, tier="webgpu", low_memory_mode=False) as pool:
        async with pool.use(TINY_BERT):
            queued = [
                asyncio.ensure_future(pool.run(path, work)) for path, work in [*WORK.items()] * 2
            ]
            await asyncio.sleep(0)
            lose(pool)
            await asyncio.sleep(0.05)
            queued[-1].cancel()
        result = await asyncio.wait_for(asyncio.gather(*queued, return_exceptions=True), 60)
        assert result[:3] == [expected[path] for path in [*WORK] * 2][:3]
        assert isinstance(result[3], asyncio.CancelledError)
        for path, work in WORK.items():
            assert await pool.run(path, work) == expected[path]
        assert pool.stats.devices_lost == 1
