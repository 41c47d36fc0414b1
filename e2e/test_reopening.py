"""A page that loses its device in the middle of the work goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Playwright

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, on_disk, wait_for
from tests.goldens.llama import tiny

MODEL = "tiny-llama/tiny-k.gguf"
PROMPT = tiny("tiny-k").chats[0].prompt_ids
# Keeps every device that is opened from now on where a test can destroy it, as a driver would.
KEEP_DEVICES = """
import js
js.eval('''
  globalThis.devices = [];
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...given) {
    const device = await request.apply(this, given);
    devices.push(device);
    return device;
  };
  0
''')
"""
STREAM = """
import json
import bascule
model = await bascule.load({url!r}, tier="webgpu")
options = {{"sampling": bascule.Sampling(temperature=1.5, seed=7), "max_new_tokens": 24}}
whole = await model.generate({prompt}, **options)
async with model.stream({prompt}, **options) as stream:
    async for piece in stream:
        if len(stream.result.ids) in {losses}:
            js.devices.at(-1).destroy()
json.dumps([whole.ids, stream.result.ids, model.stats["revivals"], model.tier_reason])
"""
KERNELS = """
import asyncio
import json
import bascule
import bascule.array as xp
import numpy as np
SOURCE = '''
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&y)) { y[id.x] = 2.0 * x[id.x]; }
}
'''
async with await bascule.open_device("webgpu") as device:
    numbers = np.arange(4, dtype=np.float32)
    kernel, x = device.kernel(SOURCE), device.asarray(numbers)
    held = await kernel(numbers, out=4, count=4)
    await xp.eval(total := xp.sum(x))
    js.devices.at(-1).destroy()
    for _ in range(500):
        if not device.lost:
            await asyncio.sleep(0.01)
    found = [(await (await kernel(numbers, out=4, count=4)).numpy()).tolist()]
    found.append(float(await xp.sum(x * x).numpy()))
    for each in (held, total):
        try:
            await each.numpy()
        except bascule.errors.DeviceLostError as error:
            found.append(error.gone)
json.dumps(found)
"""
GENERATE = """async (ids) => {
  const made = await bascule.generate(ids, { greedy: true, max_new_tokens: 200 });
  globalThis.made = made.ids;
}"""


def test_a_stream_goes_on_after_device_destroy(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    page.run("(code) => lab.run(code)", KEEP_DEVICES)
    # Each costs SwiftShader all pipelines once more.
    losses = (5,) if webgpu_engine.name.startswith("chromium") else (5, 12)
    code = STREAM.format(url=f"{site.url}/goldens/{MODEL}", prompt=PROMPT, losses=losses)
    result: list[Any] = json.loads(page.run("(code) => lab.run(code)", code))
    whole, ids, revivals, reason = result
    print(f"{webgpu_engine.name}: {reason}")
    assert len(ids) == 24
    assert ids == whole
    assert revivals == len(losses)
    assert "lost" in reason
    doubled, total, *gone = json.loads(page.run("(code) => lab.run(code)", KERNELS))
    assert (doubled, total) == ([0, 2, 4, 6], 14)
    assert [each.partition(" of ")[0] for each in gone] == ["A buffer (4,)", "An array ()"]


def test_the_gpu_process_dies(site: Site, playwright: Playwright) -> None:
    """Chromium's alone: its internal page kills it."""
    with on_disk(playwright, "chromium-webgpu") as context:
        page = PlaywrightTab(context.new_page())
        page.open(f"{site.url}/chat.html?tier=webgpu&model=/goldens/{MODEL}")
        assert settled(page) == "ready", page.run("() => document.body.innerText")
        page.run(GENERATE, PROMPT)
        expected = page.run("() => globalThis.made")
        page.run(f"(ids) => void (globalThis.running = ({GENERATE})(ids))", [7, *PROMPT])
        time.sleep(0.3)
        context.new_cdp_session(page.page).send("Browser.crashGpuProcess")
        page.run("() => globalThis.running")
        assert len(page.run("() => globalThis.made")) == 200
        page.run(GENERATE, PROMPT)
        assert page.run("() => globalThis.made") == expected
        assert page.run("() => bascule.stats()")["revivals"] >= 1


ENDLESS = """
import json

import bascule
import numpy as np

SOURCE = '''
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main() { while (y[1] == 0.0) { y[0] += 1.0; } }
'''

async def endless():
    global kernel
    device = await bascule.open_device("webgpu")
    kernel = device.kernel(SOURCE)
    try:
        await kernel(out=np.zeros(2, np.float32), count=1)
    except bascule.BasculeError as error:
        return json.dumps([type(error).__name__, str(error)])

async def next_call():
    y = np.array([3, 1], np.float32)  # here the loop ends at once
    await kernel(out=y, count=1)
    return json.dumps(y.tolist())
"""


def test_a_shader_without_an_end(site: Site, playwright: Playwright) -> None:
    """The GPU's process ends under it, as by a watchdog: the call says so, and the next one works.

    Chromium has a watchdog for real GPUs only, and on SwiftShader a loop goes on for good.
    """
    with on_disk(playwright, "chromium-webgpu") as context:
        page = PlaywrightTab(context.new_page())
        page.open(f"{site.url}/lab/")
        wait_for(page, "globalThis.lab")
        page.run("(code) => lab.run(code)", ENDLESS)
        page.run("() => void (globalThis.running = lab.run('await endless()'))")
        later = "new Promise((wake) => setTimeout(wake, 2000, 'runs'))"
        assert page.run(f"() => Promise.race([running, {later}])") == "runs"
        context.new_cdp_session(page.page).send("Browser.crashGpuProcess")
        name, message = json.loads(page.run("() => globalThis.running"))
        assert name == "DeviceLostError"
        assert "Call it again" in message
        assert json.loads(page.run("() => lab.run('await next_call()')")) == [3, 1]
