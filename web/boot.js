// Boot Pyodide with this project's package: from a memory snapshot where the site offers one
// (server/snapshot.py makes it) or this browser has made one (snapshot-maker.js), else from the beginning.
// A snapshot that does not fit, does not arrive whole or does not work costs time only.

import { sha256 as digestOf } from "./bridge/journal.js";
import { BasculeError } from "./protocol.js";
import { FOLDER } from "./snapshot-steps.mjs";
import { openSnapshots, snapshotKey } from "./snapshots.js";

/**
 * What wheel/index.json says of a snapshot; see py/bascule/server/snapshot.py.
 * @typedef {{ file: string, key: string, sha256: string, nbytes: number, pyodide: string }} Snapshot
 * @typedef {{ wheel: string, snapshot?: Snapshot | null }} Index
 * Where Pyodide's folder is, and the wheel or its index; Python's environment; whether a snapshot that
 * this browser has made is used.
 * @typedef {{ pyodide: string, wheel: string, env: Record<string, string>, snapshot?: boolean }} Config
 * Whose snapshot it was ("" for none); `plain` says why one was not used. `stages` are milliseconds: until
 * Pyodide's script and the index are there, until the snapshot's bytes are, and Pyodide's own start.
 * @typedef {{ snapshot: "site" | "browser" | "", plain: string, ms: number, stages: Record<string, number> }} How
 * @typedef {{ from: "site" | "browser", key: string, bytes: Promise<Uint8Array>, drop(): Promise<void> }} Offer
 */

const GZIP = [0x1f, 0x8b];
const SNAPSHOT = [0x00, 0x73, 0x6e, 0x70];

/** `begin` is what the page does first in Python: a snapshot with which that fails is not used.
 * @template T @param {Config} config @param {(pyodide: any) => T} begin
 * @returns {Promise<How & { pyodide: any, begun: T }>} */
export async function boot({ pyodide: folder, wheel: wheelUrl, env, snapshot = false }, begin) {
  const began = performance.now();
  const library = pyodideModule(folder);
  library.catch(() => {}); // awaited below
  const index = await fetchIndex(wheelUrl);
  const archive = once(() => fetchWheel(index, wheelUrl));
  const own = once(async () => (snapshot ? ownOffer(folder, archive) : null));
  if (!index.snapshot) own();
  const { loadPyodide, version } = await library;
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
  const finish = (/** @type {any} */ pyodide, /** @type {How["snapshot"]} */ from) => {
    lap("boot_start_ms");
    const how = { snapshot: from, plain: reasons.join("; "), ms: performance.now() - began, stages };
    return { ...how, pyodide, begun: begin(pyodide) };
  };
  for await (const { from, key, bytes, drop } of offers(index.snapshot ?? null, version, wheelUrl, own)) {
    try {
      // Pyodide waits for them itself, once its own script has run.
      bytes.then(() => lap("boot_fetch_ms"), () => {}); // told below
      const pyodide = await loadPyodide({ indexURL: folder, _loadSnapshot: bytes });
      resume(pyodide, key, env);
      return finish(pyodide, from);
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
      console.debug(`Bascule starts Python without its snapshot: ${reasons.at(-1)}`);
      await drop();
    }
  }
  archive().catch(() => {}); // awaited below
  const pyodide = await loadPyodide({ indexURL: folder, env });
  // The wheel needs no other package here: unpacking it spares the page an installer.
  pyodide.unpackArchive(await archive(), "wheel", { extractDir: FOLDER });
  pyodide.runPython(`import sys; sys.path.append("${FOLDER}")`);
  return finish(pyodide, "");
}

/** The snapshots to try. @param {Snapshot | null} offered by the site @param {string} version Pyodide's
 * @param {string} wheelUrl @param {() => Promise<Offer | null>} own */
async function* offers(offered, version, wheelUrl, own) {
  if (offered?.pyodide === version) yield siteOffer(offered, wheelUrl);
  const made = await own();
  if (made) yield made;
}

/** @param {Snapshot} offered @param {string} wheelUrl @returns {Offer} */
function siteOffer(offered, wheelUrl) {
  const bytes = fetchSnapshot(new URL(offered.file, wheelUrl), offered);
  bytes.catch(() => {}); // awaited by Pyodide
  return { from: "site", key: offered.key, bytes, drop: async () => {} };
}

/** The snapshot that this browser has made. Where it cannot be looked for, there is none.
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

/** @template T @param {() => Promise<T>} work @returns {() => Promise<T>} */
function once(work) {
  /** @type {Promise<T> | undefined} */
  let begun;
  return () => (begun ??= work());
}

/** @param {string} folder */
export async function pyodideModule(folder) {
  try {
    return await import(/* @vite-ignore */ `${folder}pyodide.mjs`);
  } catch (error) {
    const what = `Pyodide did not come from ${folder} (${error instanceof Error ? error.message : error}).`;
    throw new BasculeError({ category: "setup", what, hint: "Give its URL: new BasculeClient({ pyodide: URL })." });
  }
}

/** The index, or what stands for it where the wheel itself is named. @param {string} url
 * @returns {Promise<Index>} */
export async function fetchIndex(url) {
  return new URL(url).pathname.endsWith(".json") ? (await fetched(url)).json() : { wheel: url };
}

/** @param {Index} index @param {string} url of the index */
export async function fetchWheel({ wheel }, url) {
  return (await fetched(new URL(wheel, url).href)).arrayBuffer();
}

/** @param {string} url */
async function fetched(url) {
  const answer = await fetch(url).catch(() => null);
  if (answer?.ok) return answer;
  const what = `The package did not come from ${url} (${answer ? answer.status : "no answer"}).`;
  throw new BasculeError({ category: "setup", what, hint: "Give its URL: new BasculeClient({ wheel: URL })." });
}

/** Turn what a snapshot remembers into this page's Python; throws where it was made of another package.
 * @param {any} pyodide @param {string} key @param {Record<string, string>} env */
export function resume(pyodide, key, env) {
  const module = pyodide.pyimport("bascule.snapshot");
  const fits = module.resume(key, JSON.stringify(env));
  module.destroy();
  if (!fits) throw new Error("it was made of another package");
}

/** The bytes of a snapshot; throws where they are not what the index says.
 * @param {URL} url @param {Snapshot} snapshot */
export async function fetchSnapshot(url, { sha256, nbytes }) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  let bytes = new Uint8Array(await answer.arrayBuffer());
  // A server may have said Content-Encoding: gzip, and the browser have unpacked it.
  if (beginsWith(bytes, GZIP)) {
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(unpacked).arrayBuffer());
  }
  checked(bytes);
  if (bytes.length !== nbytes) throw new Error(`it has ${bytes.length} bytes instead of ${nbytes}`);
  if (globalThis.crypto?.subtle && (await digestOf(bytes)) !== sha256) throw new Error("its hash is wrong");
  return bytes;
}

/** Pyodide checks it only once it has made a memory of that size, and waits for ever if it cannot.
 * @template {Uint8Array} T @param {T} bytes @returns {T} */
export function checked(bytes) {
  if (!beginsWith(bytes, SNAPSHOT)) throw new Error("it is no snapshot");
  return bytes;
}

/** @param {Uint8Array} bytes @param {number[]} start */
function beginsWith(bytes, start) {
  return start.every((byte, at) => bytes[at] === byte);
}
