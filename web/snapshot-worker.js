// Makes a memory snapshot of Python in this browser, a step a worker, since a step's Pyodide goes with its
// worker only. snapshot-maker.js starts them one after the other.

import { resume } from "./boot.js";
import { checked, fetchIndex, fetchWheel, pyodideModule } from "./shipped.js";
import { collect, makeSnapshot, unpack } from "./snapshot-steps.mjs";
import { openSnapshots, snapshotKey } from "./snapshots.js";

/**
 * @typedef {{ pyodide: string, wheel: string }} Place
 * @typedef {Place & { step: "collect", numpy: boolean }} Collect
 * @typedef {Place & { step: "make", key: string, collected: Uint8Array<ArrayBuffer> }} Make
 * @typedef {Place & { step: "keep", key: string, bytes: Uint8Array<ArrayBuffer> }} Keep
 * A step's result, or why there will be no snapshot.
 * @typedef {{ key: string, collected: Uint8Array<ArrayBuffer> }} Collected
 * @typedef {{ bytes: Uint8Array<ArrayBuffer> }} Made
 * @typedef {{ error: string }} Failed
 */

/** Free bytes needed to start: about twice a snapshot's. */
const ROOM_NBYTES = 80 << 20;

/** @param {Place} place @param {object} [options] */
async function startPyodide({ pyodide }, options = {}) {
  const { loadPyodide } = await pyodideModule(pyodide);
  return loadPyodide({ indexURL: pyodide, ...options });
}

/** @param {Place} place */
async function wheelOf({ wheel }) {
  return fetchWheel(await fetchIndex(wheel), wheel);
}

async function opened() {
  const snapshots = await openSnapshots();
  if (!snapshots) throw new Error("this browser stores nothing here");
  return snapshots;
}

/** The modules that Python imports, compiled, unless another tab has made the snapshot meanwhile.
 * @param {Collect} request @returns {Promise<Collected>} */
async function collected(request) {
  const [snapshots, wheel] = await Promise.all([opened(), wheelOf(request)]);
  const key = await snapshotKey(request.pyodide, wheel);
  const entry = await snapshots.find(key);
  if (entry && !entry.hashes.includes("")) throw new Error("it is there already");
  await snapshots.checkRoom(ROOM_NBYTES);
  const pyodide = await startPyodide(request);
  unpack(pyodide, new Uint8Array(wheel));
  return { key, collected: await collect(pyodide, request.numpy) };
}

/** The snapshot's bytes. @param {Make} request @returns {Promise<Made>} */
async function make(request) {
  const wheel = await wheelOf(request);
  if ((await snapshotKey(request.pyodide, wheel)) !== request.key) throw new Error("the site has changed");
  const pyodide = await startPyodide(request, { _makeSnapshot: true });
  unpack(pyodide, new Uint8Array(wheel));
  return { bytes: makeSnapshot(pyodide, request.key, request.collected).bytes };
}

/** Store it, after Python has started from it as in a page. @param {Keep} request */
async function store({ key, bytes, ...place }) {
  const pyodide = await startPyodide(place, { _loadSnapshot: checked(bytes) });
  resume(pyodide, key, {});
  pyodide.pyimport("bascule.page.worker_browser").PageSession();
  await (await opened()).store(key, bytes);
  return { nbytes: bytes.length };
}

/** @param {Collect | Make | Keep} request */
function run(request) {
  switch (request.step) {
    case "collect":
      return collected(request);
    case "make":
      return make(request);
    case "keep":
      return store(request);
  }
}

addEventListener("message", async (/** @type {MessageEvent<Collect | Make | Keep>} */ { data: request }) => {
  try {
    const result = await run(request);
    const large = "bytes" in result ? [result.bytes.buffer] : [];
    postMessage(result, { transfer: large });
  } catch (error) {
    postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
});
