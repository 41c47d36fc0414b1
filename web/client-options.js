// The options of a BasculeClient, as its workers need them: absolute URLs and Python's environment.

import { BasculeError } from "./protocol.js";

/**
 * The locations, each a URL or a path relative to the page. Without a bundler the defaults work: they
 * are relative to client.js.
 * @typedef {object} ClientOptions
 * @property {string | URL} [pyodide] Pyodide's folder; default "pyodide/"
 * @property {string | URL} [wheel] the package's wheel, or a JSON file {"wheel": NAME} that names the one
 *   beside it; default "wheel/index.json"
 * @property {string | URL} [models] the folder of known models; default "models/"
 * @property {string | URL} [bridge] a copy of the package's web/ folder, for a Content-Security-Policy
 *   without blob:; by default that of the wheel
 * @property {(progress: import("./protocol.js").Progress) => void} [onProgress]
 * @property {Record<string, string>} [switches] BASCULE_... switches for Python's environment
 * @property {number} [cancelMs] how long Python may take to answer a cancel before its worker is terminated
 * @property {boolean} [snapshot] whether this browser may make and use a memory snapshot of Python's start
 *   where the site ships none; default true
 * @property {boolean} [countProxies] for tests: `stats` counts the live Pyodide proxies
 *
 * @typedef {{ pyodide: string, wheel: string, models: string, env: Record<string, string>,
 *   snapshot: boolean, countProxies: boolean }} WorkerConfig
 */

/** @param {ClientOptions} options @param {string} here the URL of client.js @returns {WorkerConfig} */
export function workerConfig(options, here) {
  const { pyodide, wheel, models, bridge, switches = {}, snapshot = true, countProxies = false } = options;
  const modelsUrl = folderUrl("models", models ?? resolve("models", "models/", here));
  /** @type {Record<string, string>} */
  const env = { ...switches, BASCULE_MODELS: modelsUrl };
  if (bridge) env.BASCULE_BRIDGE = folderUrl("bridge", bridge);
  return {
    pyodide: folderUrl("pyodide", pyodide ?? resolve("pyodide", "pyodide/", here)),
    wheel: resolve("wheel", wheel ?? resolve("wheel", "wheel/index.json", here)),
    models: modelsUrl,
    env,
    snapshot,
    countProxies,
  };
}

/** The model's address for its worker: a relative path is resolved by the page, a name stays a name.
 * @param {string} model */
export function modelAddress(model) {
  const relative = model.includes("/") && !model.startsWith("/") && !model.includes("://");
  return relative ? resolve("model", model) : model;
}

/** @param {string} what @param {string | URL} url */
function folderUrl(what, url) {
  const address = new URL(resolve(what, url));
  if (!address.pathname.endsWith("/")) address.pathname += "/";
  return address.href;
}

/** @param {string} what @param {string | URL} url @param {string} [base] */
function resolve(what, url, base = document.baseURI) {
  try {
    return new URL(url, base).href;
  } catch {
    const problem = `${what}: ${String(url).slice(0, 200)} is neither a URL nor a path.`;
    throw new BasculeError({ category: "input", what: problem, hint: "Mend the address." });
  }
}
