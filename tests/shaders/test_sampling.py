"""argmax_token, sample_token and penalise."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import sampling as reference
from bascule.program.ops.sampling import NOT_A_TOKEN, kept_weights, uniform_at
from tests.shaders.harness import Array, check_op, dims, disguise, normal

INF, NAN = np.inf, np.nan


async def _argmax(gpu: NativeGpu, kind: str, logits: Array, slots: int, position: int) -> int:
    inputs = [logits[None], np.zeros(slots, np.uint32), np.array([position], np.uint32)]
    result = await check_op(gpu, kind, "argmax_token", inputs, tolerance=0, states=[1, 2])
    return int(result[0])


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-small"])
async def test_argmax_of_all_sizes(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    for n in (1, 2, 63, 64, 65, 255, 256, 257, 4097, 49152):
        logits = normal(rng, n)
        logits[rng.integers(0, n, 3)] = 9  # equal ones: the first
        assert await _argmax(gpu, kind, logits, 8, 4) == int(np.argmax(logits))


@pytest.mark.parametrize(
    ("logits", "token"),
    [
        ([NAN, 1, 2], NOT_A_TOKEN),
        ([1, 2, -NAN], NOT_A_TOKEN),
        ([-INF, NAN, -INF], NOT_A_TOKEN),
        ([NAN, NAN], NOT_A_TOKEN),
        ([-INF, -INF], NOT_A_TOKEN),
        ([-3, INF, INF], NOT_A_TOKEN),
        ([-INF, -3.5, -INF], 1),
        ([3e38, -3.4e38], 0),
        ([-0.0, 0.0], 0),
        ([0.0, -0.0, 1e-45], 2),
        ([-1e-45, -0.0, -1], 1),
        ([-5, -2, -3e38], 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_argmax_of_hostile_logits(
    gpu: NativeGpu, kind: str, logits: list[float], token: int
) -> None:
    assert await _argmax(gpu, kind, np.array(logits, np.float32), 8, 0) == token


@pytest.mark.parametrize("position", [0, 1, 255, 256, 5000])
async def test_the_token_goes_behind_the_position(
    gpu: NativeGpu, rng: np.random.Generator, position: int
) -> None:
    (s,) = dims(S=512)
    for slots in (1, 8, 257):
        await check_op(
            gpu,
            "software",
            "argmax_token",
            [
                normal(rng, 1, 33),
                rng.integers(0, 33, slots).astype(np.uint32),
                np.array([position], np.uint32),
            ],
            tolerance=0,
            states=[1, 2],
            limits=[None, (s,), None],
            sizes={"S": slots},
        )


class Sampler:
    """One program that samples again and again, as a language model does, from the same logits."""

    def __init__(self, gpu: NativeGpu, kind: str, n: int) -> None:
        gpu.adapter = disguise(gpu.adapter, kind)
        self._backend = WebGpuBackend(gpu)
        graph = Graph("sampling")
        self._values = (
            graph.input("logits", (1, n)),
            graph.state("tokens", (4096,), "u32"),
            graph.state("position", (1,), "u32"),
            graph.state("settings", (8,), "u32"),
        )
        graph.output(graph.call("sample_token", *self._values))
        self._program = freeze(graph)

    async def draws(self, logits: Array, settings: Array, times: int, position: int) -> Array:
        """The tokens that stand behind `position`."""
        store = self._backend.store(())
        kept = self._backend.states(self._program.states, {})
        kept.write("position", 0, np.array([position], np.uint32))
        kept.write("settings", 0, settings)
        executable = await self._backend.prepare(self._program, store, kept)
        await executable.submit({}, {"logits": logits[None]}, times)
        tokens, after = np.empty(4096, np.uint32), np.empty(1, np.uint32)
        await kept.read("tokens", 0, tokens)
        await kept.read("position", 0, after)
        assert after[0] == position + times
        executable.close()
        kept.close()
        return tokens[(position + 1 + np.arange(times)) % 4096]


def settings(
    temperature: float = 1,
    top_k: int = 0,
    top_p: float = 1,
    min_p: float = 0,
    penalty: float = 1,
    window: int = 0,
    seed: int = 0,
) -> Array:
    numbers = np.array([temperature, 0, top_p, min_p, penalty, 0, 0, 0], np.float32)
    words = numbers.view(np.uint32)
    words[[1, 5, 6]] = top_k, window, seed
    return words


def assert_drawn(tokens: Array, logits: Array, chosen: Array, position: int) -> None:
    """Each is the reference's, or its neighbour where the draw is within rounding of a border."""
    weights = kept_weights(logits, chosen)
    mass = np.cumsum(weights) / weights.sum()
    assert (weights[tokens] > 0).all()
    seed = int(chosen[6])
    draws = np.array([uniform_at(seed, position + i) for i in range(len(tokens))])
    assert (draws < mass[tokens] + 1e-5).all()
    assert (draws > mass[tokens] - weights[tokens] / weights.sum() - 1e-5).all()


SWITCHES = [
    {},
    {"temperature": 0.3},
    {"temperature": 5.0},
    {"temperature": 1e-6},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 10**6},
    {"top_p": 0.5},
    {"top_p": 0.999},
    {"top_p": 0.0},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 30, "min_p": 0.2},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
]


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-small"])
async def test_every_switch(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    for n in (1, 2, 31, 300, 5000):
        sampler, logits = Sampler(gpu, kind, n), normal(rng, n) * np.float32(2)
        for switches in SWITCHES:
            chosen = settings(**switches, seed=int(rng.integers(2**32)))
            tokens = await sampler.draws(logits, chosen, 12, 4090)
            assert_drawn(tokens, logits, chosen, 4090)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_a_whole_vocabulary(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    n = 49152
    sampler, logits = Sampler(gpu, kind, n), normal(rng, n) * np.float32(3)
    for switches in SWITCHES:
        chosen = settings(**switches, seed=int(rng.integers(2**32)))
        assert_drawn(await sampler.draws(logits, chosen, 4, 100), logits, chosen, 100)


HOSTILE = [
    [-INF, -INF, 3.0, -INF],
    [2.0, 2.0, 2.0, 2.0],
    [5.0, 5.0, 4.0, 4.0],
    [3e38, -3e38, 3e38, 0.0],
    [0.0, -0.0, -1.0, 1.0],
    [-0.0, -1.0, 0.0, -2.0],
]


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_hostile_logits(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    sampler = Sampler(gpu, kind, 4)
    for hostile in HOSTILE:
        logits = np.array(hostile, np.float32)
        for switches in ({}, {"top_k": 1}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.5}):
            chosen = settings(**switches, seed=int(rng.integers(2**32)))
            tokens = await sampler.draws(logits, chosen, 16, 0)
            assert_drawn(tokens, logits, chosen, 0)


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("bad", [NAN, -NAN, INF], ids=str)
async def test_logits_that_are_no_numbers_give_no_token(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, bad: float
) -> None:
    for n in (1, 31, 5000):
        sampler, logits = Sampler(gpu, kind, n), normal(rng, n)
        logits[rng.integers(n)] = bad
        for switches in ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.5}):
            chosen = settings(**switches, seed=int(rng.integers(2**32)))
            assert (await sampler.draws(logits, chosen, 3, 0) == NOT_A_TOKEN).all()
            given = reference.sample_token(logits[None], np.zeros(4), np.zeros(1), chosen)
            assert given == NOT_A_TOKEN


async def test_temperature_zero_takes_the_likeliest(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    logits = normal(rng, 200)
    logits[[17, 99]] = 7
    for temperature in (0.0, -1.0, NAN):
        chosen = settings(temperature=temperature, top_k=9)
        tokens = await Sampler(gpu, "software", 200).draws(logits, chosen, 5, 0)
        assert (tokens == 17).all()


@pytest.mark.parametrize(
    "switches", [{}, {"temperature": 2.0}, {"top_k": 6}, {"top_p": 0.8, "min_p": 0.03}], ids=str
)
async def test_draws_are_as_frequent_as_they_should_be(
    gpu: NativeGpu, rng: np.random.Generator, switches: dict[str, float]
) -> None:
    logits = np.linspace(-2, 2, 12).astype(np.float32)
    chosen = settings(**switches, seed=int(rng.integers(2**32)))
    times = 4000
    tokens = await Sampler(gpu, "software", 12).draws(logits, chosen, times, 0)
    weights = kept_weights(logits, chosen)
    expected = times * weights / weights.sum()
    result = np.bincount(tokens, minlength=12)
    assert (result[expected == 0] == 0).all()
    likely = expected > 0
    square = float(((result - expected)[likely] ** 2 / expected[likely]).sum())
    # Chi-square of up to 11 degrees of freedom: above 45 once in 200,000 runs.
    assert square < 45


async def test_another_seed_or_position_draws_anew(gpu: NativeGpu) -> None:
    sampler, logits = Sampler(gpu, "software", 1000), np.zeros(1000, np.float32)
    first = await sampler.draws(logits, settings(seed=1), 50, 0)
    again = await sampler.draws(logits, settings(seed=1), 50, 0)
    other = await sampler.draws(logits, settings(seed=2), 50, 0)
    later = await sampler.draws(logits, settings(seed=1), 50, 10)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[10:], later[:40])
    assert (first != other).sum() > 40


async def test_penalise(gpu: NativeGpu, rng: np.random.Generator) -> None:
    # ids, slots, position, window: a slice of ids and more, no token yet but one, a wrapped ring,
    # a window longer than the text, longer than the ring, none.
    for n, slots, position, window in (
        (1, 1, 0, 1),
        (1023, 64, 40, 8),
        (1025, 64, 0, 64),
        (3000, 16, 100, 5),
        (50, 200, 150, 300),
        (50, 20, 150, 300),
        (50, 20, 10, 0),
    ):
        for penalty in (1.3, 0.8, 0.0):
            inputs = [
                normal(rng, 1, n),
                rng.integers(0, n + 2, slots).astype(np.uint32),
                np.array([position], np.uint32),
                settings(penalty=penalty, window=window),
            ]
            await check_op(gpu, "software", "penalise", inputs, tolerance=1e-6, states=[1, 2, 3])


# text_first, times_first, times_end, is_first; ids from 40 on stand for times.
RULES = [(0, 0, 2**32 - 1, 0), (0, 40, 40, 1), (40, 40, 51, 1), (30, 47, 2**32 - 1, 0)]


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-small"])
async def test_allowed_tokens(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    chosen: set[bool] = set()
    for rules in RULES:
        for lead in (0.0, 3.0):  # of the best text over the best time
            logits, kinds = normal(rng, 65), rng.integers(0, 3, 65).astype(np.uint32)
            logits[[31, 50]] = 4 + lead, 4
            logits[33] = 4 + lead  # equal ones: the first
            kinds[[31, 33, 50]] = 0
            token = await _allowed(gpu, kind, logits, kinds, rules)
            chosen.add(token >= 40)
            assert kinds[token] + rules[3] < 2
    assert chosen == {True, False}
    for n in (1, 2, 257, 4097):
        logits = np.full(n, -80, np.float32)
        logits[n // 2] = 5
        assert await _allowed(gpu, kind, logits, np.zeros(n, np.uint32), RULES[0]) == n // 2


async def test_where_no_token_is_allowed(gpu: NativeGpu) -> None:
    plain, none = np.zeros(9, np.float32), np.full(9, 2, np.uint32)
    assert await _allowed(gpu, "software", plain, none, RULES[0]) == -1
    for bad in (NAN, INF, -INF):  # wherever it is
        broken = plain.copy()
        broken[7] = bad
        kinds = np.zeros(9, np.uint32)
        kinds[7] = 2
        assert await _allowed(gpu, "software", broken, kinds, RULES[0]) == -1


async def _allowed(
    gpu: NativeGpu, kind: str, logits: Array, kinds: Array, rules: tuple[int, ...]
) -> int:
    inputs = [
        logits[None],
        np.zeros(8, np.uint32),
        np.array([4], np.uint32),
        kinds,
        np.array(rules, np.uint32),
    ]
    result = await check_op(
        gpu, kind, "allowed_token", inputs, tolerance=1e-6, states=[1, 2, 3, 4], times=40
    )
    return int(result[0])
