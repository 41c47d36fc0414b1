// The worker of repl.html: Python, in which a visitor's sources run one after the other.

import { boot } from "./boot.js";
import "./bridge/importer.js";
import { receiveShipped } from "./shipped.js";
// The imports of these, too: the browser then requests all of them at once, not level by level.
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
 *   | { type: "opened", width: number, height: number, pixels: Uint8ClampedArray<ArrayBuffer> }} ConsoleRequest
 * @typedef {{ type: "started", version: string } | { type: "failed", what: string }
 *   | { type: "text", kind: string, text: string } | { type: "picture", mime: string, data: Uint8Array<ArrayBuffer>, id: number }
 *   | { type: "canvas", id: number, width: number, height: number, clickable: boolean }
 *   | { type: "ran", ok: boolean } | { type: "entered", complete: boolean }
 *   | { type: "names", names: string[], start: number }} ConsoleMessage
 */

/** @param {ConsoleMessage} message */
function post(message) {
  postMessage(message);
}

/** @type {Promise<{ pyodide: any, session: any }>} */
let started;

/** @param {StartConsole} config */
async function start(config) {
  const { pyodide, session } = await boot(config, (/** @type {any} */ pyodide) => {
    const module = pyodide.pyimport("bascule.page.console_browser");
    return module.ConsoleSession(
      (/** @type {string} */ kind, /** @type {string} */ text) => post({ type: "text", kind, text }),
      (/** @type {string} */ mime, /** @type {Uint8Array<ArrayBuffer>} */ data, /** @type {number} */ id) =>
        post({ type: "picture", mime, data, id }),
      (/** @type {number} */ id, /** @type {number} */ width, /** @type {number} */ height, /** @type {boolean} */ clickable) =>
        post({ type: "canvas", id, width, height, clickable }),
    );
  }, receiveShipped(config.shipped));
  post({ type: "started", version: pyodide.runPython("import sys; sys.version.split()[0]") });
  return { pyodide, session };
}

/** @param {Exclude<ConsoleRequest, StartConsole>} request */
async function answer(request) {
  const { pyodide, session: console } = await started;
  if (request.type === "interrupt") pyodide.setInterruptBuffer(request.interrupt);
  else if (request.type === "run") post({ type: "ran", ok: await console.run(request.source) });
  else if (request.type === "enter") post({ type: "entered", complete: console.is_complete(request.source) });
  else if (request.type === "cancel") console.cancel();
  else if (request.type === "click") post({ type: "ran", ok: await console.click(request.id, request.x, request.y) });
  else if (request.type === "canvas") await console.attach(request.id, request.canvas);
  else if (request.type === "opened") {
    post({ type: "ran", ok: await console.open(request.pixels, request.width, request.height) });
  } else {
    const [names, start] = console.complete(request.source);
    post({ type: "names", names, start });
  }
}

onmessage = ({ data }) => {
  const request = /** @type {ConsoleRequest} */ (data);
  if (request.type === "start") {
    started = start(request);
    started.catch((error) => post({ type: "failed", what: String(error?.message ?? error) }));
  } else answer(request).catch((error) => post({ type: "failed", what: String(error?.message ?? error) }));
};
