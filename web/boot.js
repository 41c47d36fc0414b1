// Boot Pyodide with this project's package: from a memory snapshot where the site offers one
// (server/snapshot.py makes it), else from the beginning. A snapshot that does not fit, does not arrive
// whole or does not work costs time only.

import { BasculeError } from "./protocol.js";

/**
 * What wheel/index.json says of a snapshot; see py/bascule/server/snapshot.py.
 * @typedef {{ file: string, key: string, sha256: string, nbytes: number, pyodide: string }} Snapshot
 * @typedef {{ wheel: string, snapshot?: Snapshot | null }} Index
 * Where Pyodide's folder is, and the wheel or its index; Python's environment.
 * @typedef {{ pyodide: string, wheel: string, env: Record<string, string> }} Config
 * `plain` says why a snapshot that was offered was not used. `stages` are milliseconds: until Pyodide's
 * script and the index are there, until the snapshot's bytes are, and Pyodide's own start.
 * @typedef {{ pyodide: any, snapshot: boolean, plain: string, ms: number, stages: Record<string, number> }} Booted
 */

const FOLDER = "/lib/bascule"; // as server/snapshot.mjs has it
const GZIP = [0x1f, 0x8b];
const SNAPSHOT = [0x00, 0x73, 0x6e, 0x70];

/** @param {Config} config @returns {Promise<Booted>} */
export async function boot({ pyodide: folder, wheel: wheelUrl, env }) {
  const began = performance.now();
  const library = pyodideModule(folder);
  library.catch(() => {}); // awaited below
  const { wheel, snapshot } = await fetchIndex(wheelUrl);
  const { loadPyodide, version } = await library;
  /** @type {Record<string, number>} */
  const stages = { boot_library_ms: performance.now() - began };
  let last = performance.now();
  const lap = (/** @type {string} */ name) => {
    const now = performance.now();
    stages[name] = now - last;
    last = now;
  };
  let plain = "";
  if (snapshot && snapshot.pyodide === version) {
    try {
      // Pyodide waits for them itself, once its own script has run.
      const bytes = fetchSnapshot(new URL(snapshot.file, wheelUrl), snapshot);
      bytes.then(() => lap("boot_fetch_ms"), () => {}); // told below
      const pyodide = await loadPyodide({ indexURL: folder, _loadSnapshot: bytes });
      resume(pyodide, snapshot.key, env);
      lap("boot_start_ms");
      return { pyodide, snapshot: true, plain, ms: performance.now() - began, stages };
    } catch (error) {
      plain = error instanceof Error ? error.message : String(error);
      console.debug(`Bascule starts Python without its snapshot: ${plain}`);
    }
  }
  const archive = fetched(new URL(wheel, wheelUrl).href).then((answer) => answer.arrayBuffer());
  archive.catch(() => {}); // awaited below
  const pyodide = await loadPyodide({ indexURL: folder, env });
  // The wheel needs no other package here: unpacking it spares the page an installer.
  pyodide.unpackArchive(await archive, "wheel", { extractDir: FOLDER });
  pyodide.runPython(`import sys; sys.path.append("${FOLDER}")`);
  lap("boot_start_ms");
  return { pyodide, snapshot: false, plain, ms: performance.now() - began, stages };
}

/** @param {string} folder */
async function pyodideModule(folder) {
  try {
    return await import(/* @vite-ignore */ `${folder}pyodide.mjs`);
  } catch (error) {
    const what = `Pyodide did not come from ${folder} (${error instanceof Error ? error.message : error}).`;
    throw new BasculeError({ category: "setup", what, hint: "Give its URL: new BasculeClient({ pyodide: URL })." });
  }
}

/** The index, or what stands for it where the wheel itself is named. @param {string} url
 * @returns {Promise<Index>} */
async function fetchIndex(url) {
  return new URL(url).pathname.endsWith(".json") ? (await fetched(url)).json() : { wheel: url };
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
function resume(pyodide, key, env) {
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
  // Pyodide checks it only once it has made a memory of that size, and waits for ever if it cannot.
  if (!beginsWith(bytes, SNAPSHOT)) throw new Error("it is no snapshot");
  if (bytes.length !== nbytes) throw new Error(`it has ${bytes.length} bytes instead of ${nbytes}`);
  if (globalThis.crypto?.subtle && (await hexSha256(bytes)) !== sha256) throw new Error("its hash is wrong");
  return bytes;
}

/** @param {Uint8Array} bytes @param {number[]} start */
function beginsWith(bytes, start) {
  return start.every((byte, at) => bytes[at] === byte);
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function hexSha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
