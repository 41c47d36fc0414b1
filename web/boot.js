// Boot Pyodide with this project's package: from a memory snapshot where the site ships one (shipped.js)
// or this browser has made one (snapshot-maker.js), else without one.
// A snapshot that does not match, is incomplete or does not work only costs time.

import { checked, fetchWheel, findShipped, pyodideModule, pyodideWasm } from "./shipped.js";
import { FOLDER } from "./snapshot-steps.mjs";
import { openSnapshots, snapshotKey } from "./snapshots.js";

/**
 * Where Pyodide's folder is, and the wheel or its index; Python's environment; whether a snapshot that
 * this browser has made is used.
 * @typedef {{ pyodide: string, wheel: string, env: Record<string, string>, snapshot?: boolean }} Config
 * Whose snapshot it was ("" for none); `plain` says why one was not used; `compiled`: whether the page had
 * compiled the WebAssembly. `stages` are milliseconds: until Pyodide's script and the index are there, until the
 * snapshot's bytes are, and Pyodide's own start.
 * @typedef {{ snapshot: "site" | "browser" | "", plain: string, compiled: boolean, ms: number,
 *   stages: Record<string, number> }} How
 * @typedef {{ from: "site" | "browser", key: string, bytes: Promise<Uint8Array>, drop(): Promise<void> }} Offer
 * @typedef {import("./shipped.js").Shipped} Shipped
 * @typedef {import("./shipped.js").Received} Received
 */

/** `begin` is the page's first use of Python: a snapshot with which it fails is not used. `sent` is what
 * the page has fetched already.
 * @template T @param {Config} config @param {(pyodide: any) => T} begin @param {Received} [sent]
 * @returns {Promise<How & { pyodide: any, session: T }>} */
export async function boot({ pyodide: folder, wheel: wheelUrl, env, snapshot = false }, begin, sent) {
  const began = performance.now();
  const library = pyodideModule(folder);
  library.catch(() => {}); // awaited below
  const shipped = (await sent?.shipped) ?? (await findShipped({ pyodide: folder, wheel: wheelUrl }));
  const { index } = shipped;
  const archive = once(() => fetchWheel(index, wheelUrl));
  const own = once(async () => (snapshot ? ownOffer(folder, archive) : null));
  if (!index.snapshot) own();
  const { loadPyodide: load } = await library;
  const loadPyodide = (/** @type {object} */ options) => withModule(folder, sent?.module, () => load(options));
  /** @type {Record<string, number>} */
  const stages = { boot_library_ms: performance.now() - began };
  let last = performance.now();
  const lap = (/** @type {string} */ name) => {
    const now = performance.now();
    stages[name] = now - last;
    last = now;
  };
  /** @type {string[]} */
  const reasons = [];
  const finish = async (/** @type {any} */ pyodide, /** @type {How["snapshot"]} */ from) => {
    lap("boot_start_ms");
    const ms = performance.now() - began;
    const compiled = Boolean(await sent?.module);
    const how = { snapshot: from, plain: reasons.join("; "), compiled, ms, stages };
    return { ...how, pyodide, session: begin(pyodide) };
  };
  for await (const { from, key, bytes, drop } of offers(shipped, own)) {
    try {
      // Pyodide itself waits for them, once its own script has run.
      bytes.then(() => lap("boot_fetch_ms"), () => {}); // reported below
      const pyodide = await loadPyodide({ indexURL: folder, _loadSnapshot: bytes });
      resume(pyodide, key, env);
      return await finish(pyodide, from);
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
      console.debug(`Bascule starts Python without its snapshot: ${reasons.at(-1)}`);
      await drop();
    }
  }
  archive().catch(() => {}); // awaited below
  const pyodide = await loadPyodide({ indexURL: folder, env });
  // The wheel needs no other package here, so it is unpacked without an installer.
  pyodide.unpackArchive(await archive(), "wheel", { extractDir: FOLDER });
  pyodide.runPython(`import sys; sys.path.append("${FOLDER}")`);
  return finish(pyodide, "");
}

/** The snapshots to try. @param {Shipped} shipped @param {() => Promise<Offer | null>} own */
async function* offers({ index, bytes }, own) {
  if (index.snapshot && bytes) yield /** @type {Offer} */ ({ from: "site", key: index.snapshot.key, bytes, drop: async () => {} });
  const pyodide = await own();
  if (pyodide) yield pyodide;
}

/** The snapshot that this browser has made; none where its cache cannot be read.
 * @param {string} folder @param {() => Promise<ArrayBuffer>} archive @returns {Promise<Offer | null>} */
async function ownOffer(folder, archive) {
  try {
    const snapshots = await openSnapshots();
    // A first visit does not wait for the wheel.
    if (!(await snapshots?.any())) return null;
    const key = await snapshotKey(folder, await archive());
    const entry = await snapshots?.find(key);
    if (!snapshots || !entry) return null;
    const bytes = snapshots.read(entry).then(checked);
    bytes.catch(() => {}); // awaited by Pyodide
    return { from: "browser", key, bytes, drop: () => snapshots.drop(key).catch(() => {}) };
  } catch (error) {
    console.debug("Bascule did not look for its own snapshot:", error);
    return null;
  }
}

/** Start Pyodide, which has no option for its WebAssembly compiled: while it starts, this module takes the place
 * of what it fetches and compiles. Without one it does both itself.
 * @template T @param {string} folder @param {Promise<WebAssembly.Module | null> | undefined} compiled
 * @param {() => Promise<T>} start @returns {Promise<T>} */
export async function withModule(folder, compiled, start) {
  if (!compiled) return start();
  const { fetch } = globalThis;
  const { instantiateStreaming } = WebAssembly;
  const url = pyodideWasm(folder);
  const none = new Response();
  globalThis.fetch = async (resource, options) => {
    const requested = resource instanceof Request ? resource.url : String(resource);
    return requested === url && (await compiled) ? none : fetch(resource, options);
  };
  WebAssembly.instantiateStreaming = async (source, imports) => {
    const [answer, module] = [await source, await compiled];
    if (answer !== none || !module) return instantiateStreaming(answer, imports);
    return { module, instance: await WebAssembly.instantiate(module, imports) };
  };
  try {
    return await start();
  } finally {
    globalThis.fetch = fetch;
    WebAssembly.instantiateStreaming = instantiateStreaming;
  }
}

/** @template T @param {() => Promise<T>} work @returns {() => Promise<T>} */
function once(work) {
  /** @type {Promise<T> | undefined} */
  let promise;
  return () => (promise ??= work());
}

/** Adapt a snapshot's Python to this page; throws where it was made from another package.
 * @param {any} pyodide @param {string} key @param {Record<string, string>} env */
export function resume(pyodide, key, env) {
  const module = pyodide.pyimport("bascule.page.snapshot");
  const fits = module.resume(key, JSON.stringify(env));
  module.destroy();
  if (!fits) throw new Error("it was made from another package");
}
