// The worker of console.html: Python, in which a visitor's sources run one after the other.

import { boot } from "./boot.js";
import "./bridge/importer.js";
import { receiveShipped } from "./shipped.js";
// What these import themselves: a browser asks for all of it at once then, not level by level.
import "./bridge/journal.js";
import "./bridge/store.js";
import "./protocol.js";
import "./snapshot-steps.mjs";
import "./snapshots.js";

/**
 * @typedef {{ type: "start", shipped: MessagePort } & import("./client-options.js").WorkerConfig} StartConsole
 * @typedef {StartConsole | { type: "interrupt", interrupt: Int32Array } | { type: "run", source: string } | { type: "enter", source: string }
 *   | { type: "names", source: string } | { type: "cancel" }
 *   | { type: "click", id: number, x: number, y: number }
 *   | { type: "canvas", id: number, canvas: OffscreenCanvas }
 *   | { type: "opened", width: number, height: number, pixels: Uint8ClampedArray<ArrayBuffer> }} Asked
 * @typedef {{ type: "started", version: string } | { type: "failed", what: string }
 *   | { type: "text", kind: string, text: string } | { type: "picture", mime: string, data: Uint8Array<ArrayBuffer>, id: number }
 *   | { type: "canvas", id: number, width: number, height: number, clickable: boolean }
 *   | { type: "ran", good: boolean } | { type: "entered", complete: boolean }
 *   | { type: "names", names: string[], start: number }} Said
 */

/** @param {Said} said */
function say(said) {
  postMessage(said);
}

/** @type {Promise<{ pyodide: any, begun: any }>} */
let started;

/** @param {StartConsole} config */
async function start(config) {
  const { pyodide, begun } = await boot(config, (/** @type {any} */ pyodide) => {
    const module = pyodide.pyimport("bascule.page.console_browser");
    return module.ConsoleSession(
      (/** @type {string} */ kind, /** @type {string} */ text) => say({ type: "text", kind, text }),
      (/** @type {string} */ mime, /** @type {Uint8Array<ArrayBuffer>} */ data, /** @type {number} */ id) =>
        say({ type: "picture", mime, data, id }),
      (/** @type {number} */ id, /** @type {number} */ width, /** @type {number} */ height, /** @type {boolean} */ clickable) =>
        say({ type: "canvas", id, width, height, clickable }),
    );
  }, receiveShipped(config.shipped));
  say({ type: "started", version: pyodide.runPython("import sys; sys.version.split()[0]") });
  return { pyodide, begun };
}

/** @param {Exclude<Asked, StartConsole>} asked */
async function answer(asked) {
  const { pyodide, begun: console } = await started;
  if (asked.type === "interrupt") pyodide.setInterruptBuffer(asked.interrupt);
  else if (asked.type === "run") say({ type: "ran", good: await console.run(asked.source) });
  else if (asked.type === "enter") say({ type: "entered", complete: console.is_complete(asked.source) });
  else if (asked.type === "cancel") console.cancel();
  else if (asked.type === "click") say({ type: "ran", good: await console.click(asked.id, asked.x, asked.y) });
  else if (asked.type === "canvas") await console.attach(asked.id, asked.canvas);
  else if (asked.type === "opened") say({ type: "ran", good: await console.open(asked.pixels, asked.width, asked.height) });
  else {
    const [names, start] = console.complete(asked.source);
    say({ type: "names", names, start });
  }
}

onmessage = ({ data }) => {
  const asked = /** @type {Asked} */ (data);
  if (asked.type === "start") {
    started = start(asked);
    started.catch((error) => say({ type: "failed", what: String(error?.message ?? error) }));
  } else answer(asked).catch((error) => say({ type: "failed", what: String(error?.message ?? error) }));
};
