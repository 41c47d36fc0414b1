"""What goes wrong on a page's device in the middle of a run: told clearly, or made good."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from e2e.conftest import Site
from e2e.engines import Engine, Page, PlaywrightTab, wait_for
from tests.goldens.llama import tiny

PROMPT = tiny("tiny-k").chats[0].prompt_ids
SETUP = """
import asyncio, json
import js
import numpy as np
import bascule
from bascule.backend.webgpu.tape import TapeBuilder
from bascule.errors import GpuError, GpuOutOfMemoryError

BERT, LLAMA = {goldens!r} + "/tiny-bert", {goldens!r} + "/tiny-llama/tiny-k.gguf"
PROMPT = {prompt}
TEXTS = [f"w{{n}} w{{n + 1}}" for n in range(1, 33)]
GREEDY = bascule.Sampling(temperature=0)
found = {{}}

async def told(work):
    '''The error of what must fail, and soon.'''
    try:
        await asyncio.wait_for(work, 60)
    except bascule.BasculeError as error:
        return [type(error).__name__, str(error), getattr(error, "label", ""), error.hint]
    return ["nothing"]

def alike(a, b):
    return float((a * b).sum(axis=1).min())
"""
REFUSALS = """
model = await bascule.load(BERT, tier="webgpu")
before = await model.embed(TEXTS[:3])
gpu = model._backend.gpu
runs = list(model._prepared.values())[-1].executable  # the latest

# Too many workgroups, in the tape that the next embedding replays.
build = TapeBuilder.dispatch
def too_many(self, pipeline, bindings, workgroups):
    build(self, pipeline, bindings, (70_000, 1, 1))
TapeBuilder.dispatch = too_many
sound = runs._tapes[1]
del runs._tapes[1]
runs._tape_of(1)
TapeBuilder.dispatch = build
found["refused"] = await told(model.embed(TEXTS[:3]))
gpu.forget(runs._tapes[1])
runs._tapes[1] = sound
found["after refused"] = np.array_equal(await model.embed(TEXTS[:3]), before)

# A buffer that the page destroys behind Bascule's back.
js.globalThis.spoil = True
model.trim()
await model.embed(TEXTS[:3])
js.globalThis.spoil = False
js.globalThis.last.destroy()
found["destroyed"] = await told(model.embed(TEXTS[:3]))
model.trim()
found["after destroyed"] = np.array_equal(await model.embed(TEXTS[:3]), before)

# A buffer of a tape that is freed.
runs = list(model._prepared.values())[-1].executable
gpu.free(runs._owned.pop())
found["freed"] = await told(model.embed(TEXTS[:3]))
model.trim()
found["after freed"] = np.array_equal(await model.embed(TEXTS[:3]), before)
model.close()
"""
# Notes the last storage buffer that was made while `spoil` is set.
SPOIL = """
js.eval('''
  const create = GPUDevice.prototype.createBuffer;
  GPUDevice.prototype.createBuffer = function (asked) {
    const made = create.call(this, asked);
    if (globalThis.spoil && asked.usage & GPUBufferUsage.STORAGE) globalThis.last = made;
    return made;
  };
  0
''')
"""
NAN = """
async def poisoned(model, name, work, *, at_once=True):
    target = model.weights.targets[name]
    gpu = model._backend.gpu
    sound = np.empty(256, np.float32)
    await gpu.read(target, 0, sound.data)
    if at_once:
        model.weights.write(target, 64, np.full(4, np.nan, np.float32))
    error = await told(work())
    model.weights.write(target, 0, sound)
    return error

async with await bascule.load(BERT, tier="webgpu") as model:
    before = await model.embed(TEXTS)
    name = "encoder.layer.0.qkv.weight"
    found["embedding"] = await poisoned(model, name, lambda: model.embed(TEXTS))
    found["after embedding"] = alike(await model.embed(TEXTS), before) > 0.99999

async with await bascule.load(LLAMA, tier="webgpu") as model:
    for sampling in (GREEDY, bascule.Sampling(seed=3)):
        options = {"sampling": sampling, "max_new_tokens": 24}
        whole = await model.generate(PROMPT, **options)
        stream = model.stream(PROMPT, **options)

        async def read_and_poison():
            target = model.weights.targets["blk.0.attn_norm.weight"]
            async for piece in stream:
                if len(stream.result.ids) == 5:
                    model.weights.write(target, 64, np.full(4, np.nan, np.float32))

        found["text"] = await poisoned(
            model, "blk.0.attn_norm.weight", read_and_poison, at_once=False
        )
        given = stream.result.ids
        found["given"] = [5 <= len(given) < 24, given == whole.ids[: len(given)]]
        found["after text"] = (await model.generate(PROMPT, **options)).ids == whole.ids
"""
# A device with a budget. Past it Chromium's is asked for what it has no memory for; Firefox's has
# memory for everything, and its answer is planned.
SCARCE = """
js.eval('''
  globalThis.scarce = { budget: Infinity, once: false, held: 0, refused: 0, answer: null };
  scarce.real = REAL;
  const sizes = new WeakMap();
  const { createBuffer, popErrorScope } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  GPUDevice.prototype.createBuffer = function (asked) {
    const refuse = scarce.held + asked.size > scarce.budget;
    if (refuse) scarce.refused += 1;
    if (refuse && scarce.once) scarce.budget = Infinity;
    const size = refuse && scarce.real ? this.limits.maxBufferSize : asked.size;
    const made = createBuffer.call(this, { ...asked, size });
    if (refuse && scarce.real) Object.defineProperty(made, "size", { value: asked.size });
    if (refuse && !scarce.real) {
      scarce.answer = new GPUOutOfMemoryError("planned by the test");
      destroy.call(made);
    }
    if (!refuse) sizes.set(made, asked.size);
    if (!refuse) scarce.held += asked.size;
    return made;
  };
  GPUDevice.prototype.popErrorScope = async function () {
    const { answer } = scarce;
    scarce.answer = null;
    return (await popErrorScope.call(this)) ?? answer;
  };
  GPUBuffer.prototype.destroy = function () {
    scarce.held -= sizes.get(this) ?? 0;
    sizes.delete(this);
    destroy.call(this);
  };
  0
'''.replace("REAL", "REAL_HERE"))
scarce = js.scarce
"""
MEMORY = """
opened = await bascule.open_device("webgpu")
gpu = opened.backend.gpu
empty = scarce.held
async with await opened.load(BERT) as model:
    await model.embed(TEXTS[:1])
    one = scarce.held
    before = await model.embed(TEXTS)
    whole = scarce.held
    found["trimmed"] = model.trim() > 0
    scarce.budget = one + (whole - one) // 2
    again = await model.embed(TEXTS)
    found["smaller"] = [alike(again, before), scarce.refused, model.stats["memory_retries"]]
    model.trim()
    scarce.budget = held = scarce.held
    found["none"] = await told(model.embed(TEXTS))
    found["leaked"] = scarce.held - held
    scarce.budget = js.Infinity
    found["after none"] = np.array_equal(await model.embed(TEXTS), before)
    weights = model.weights.nbytes

before = scarce.held
for budget in (weights // 2, weights + 2000):
    scarce.budget = before + budget
    found[f"load {budget < weights}"] = await told(opened.load(BERT))
    found[f"load left {budget < weights}"] = scarce.held - before
scarce.budget = js.Infinity
async with await opened.load(BERT) as model:
    found["after load"] = alike(await model.embed(TEXTS), again)

async with await opened.load(LLAMA) as model:
    options = {"sampling": GREEDY, "max_new_tokens": 40, "overflow": "slide"}
    ids = [1 + n % 90 for n in range(230)]
    whole = await model.generate(ids, **options)
    model.trim()
    async with model.stream(ids, **options) as stream:
        async for piece in stream:
            if len(stream.result.ids) == 2:
                scarce.budget, scarce.once = 0, True
    found["text"] = [stream.result.ids == whole.ids, model.stats["memory_retries"]]
opened.close()
"""


def run(page: Page, site: Site, *parts: str) -> dict[str, Any]:
    setup = SETUP.format(goldens=f"{site.url}/goldens", prompt=PROMPT)
    wait_for(page, "globalThis.lab")
    code = "\n".join((setup, *parts, "json.dumps(found)"))
    return json.loads(page.run("(code) => lab.run(code)", code))


def test_refused_commands_are_told_with_their_shader(
    webgpu_engine: Engine, site: Site, own_lab: Page
) -> None:
    result = run(own_lab, site, SPOIL, REFUSALS)
    for what in ("refused", "destroyed", "freed"):
        print(f"{webgpu_engine.name}: {result[what]}")
        kind, message, label, _ = result[what]
        assert kind == "GpuError"
        assert label.endswith(".wgsl")
        assert label in message
        assert result[f"after {what}"], what


def test_nan_is_told_and_never_given(webgpu_engine: Engine, site: Site, own_lab: Page) -> None:
    result = run(own_lab, site, NAN)
    print(f"{webgpu_engine.name}: {result}")
    assert result["embedding"][0] == result["text"][0] == "NotFiniteError"
    assert "Load the model again" in result["text"][3]
    assert result["given"] == [True, True]
    assert result["after embedding"]
    assert result["after text"]


def test_memory_that_ends(webgpu_engine: Engine, site: Site, own_lab: Page) -> None:
    chromium = webgpu_engine.name.startswith("chromium")
    scarce = SCARCE.replace("REAL_HERE", "true" if chromium else "false")
    result = run(own_lab, site, scarce, MEMORY)
    print(f"{webgpu_engine.name}: {result}")
    assert result["trimmed"]
    likeness, refused, retries = result["smaller"]
    assert likeness > 0.99999
    assert refused >= retries >= 1
    for what in ("none", "load True", "load False"):
        assert result[what][0] == "GpuOutOfMemoryError", result[what]
        assert "quantize" in result[what][3]
    assert result["after none"]
    assert result["leaked"] == result["load left True"] == result["load left False"] == 0
    assert result["after load"] > 0.99999
    assert result["text"] == [True, 1]


EMBED = """
again = await model.embed(TEXTS)
json.dumps([alike(again, before), model.stats["pressure_yields"]])
"""


def test_a_page_under_pressure_goes_slower(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/lab/")
    result = webgpu_engine.name.startswith("chromium")  # no other engine has the API
    machine = Machine(page) if result else None
    load = 'model = await bascule.load(BERT, tier="webgpu")\nbefore = await model.embed(TEXTS)'
    offered = 'found["offered"] = (await bascule.capabilities(dispatch=False)).compute_pressure'
    assert run(page, site, load, offered) == {"offered": result}
    assert embedded(page)[1] == 0
    if machine is None:
        return
    machine.is_under("critical")
    likeness, yields = embedded(page)
    assert likeness > 0.99999
    assert yields >= 1
    machine.is_under("fair")
    assert embedded(page)[1] == yields
    machine.is_itself_again(page)


class Machine:
    """Chromium's virtual source of pressure; the one that is real tells of this machine's load."""

    def __init__(self, page: Page) -> None:
        assert isinstance(page, PlaywrightTab)
        self._page = page
        self._session = page.page.context.new_cdp_session(page.page)
        enabled = {"enabled": True, "source": "cpu"}
        self._session.send("Emulation.setPressureSourceOverrideEnabled", enabled)
        self._session.send("Emulation.setPressureStateOverride", NOMINAL)

    def is_under(self, state: str) -> None:
        """Until the model has heard of it."""
        self._session.send("Emulation.setPressureStateOverride", {**NOMINAL, "state": state})
        heard = f"await until(lambda: model._pressure.state == {state!r})"
        self._page.run("(code) => lab.run(code)", f"{UNTIL}\n{heard}")

    def is_itself_again(self, page: Page) -> None:
        """Chromium ends where a page is closed that still listens to a virtual source."""
        page.run("(code) => lab.run(code)", "model.close()")
        off = {"enabled": False, "source": "cpu"}
        self._session.send("Emulation.setPressureSourceOverrideEnabled", off)
        self._session.detach()


NOMINAL = {"source": "cpu", "state": "nominal"}
UNTIL = """
async def until(met):
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.05)
"""


def embedded(page: Page) -> tuple[float, int]:
    likeness, yields = json.loads(page.run("(code) => lab.run(code)", EMBED))
    return likeness, yields
