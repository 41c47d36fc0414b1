// A site's files for Python's start: wheel/index.json, the memory snapshot that it names
// (server/snapshot.py makes it), and Pyodide's WebAssembly. The page fetches them while its worker starts,
// compiles the WebAssembly, and sends all of it there.

import { sha256 as digestOf } from "./bridge/journal.js";
import { BasculeError } from "./protocol.js";

/**
 * A snapshot in wheel/index.json; see py/bascule/server/snapshot.py.
 * @typedef {{ file: string, key: string, sha256: string, nbytes: number, pyodide: string }} Snapshot
 * @typedef {{ wheel: string, snapshot?: Snapshot | null }} Index
 * The index, and the bytes of its snapshot, if that is of this Pyodide.
 * @typedef {{ index: Index, bytes: Promise<Uint8Array<ArrayBuffer>> | null }} Shipped
 * The page's messages; an index or a module of null is one that did not arrive. After "end" no
 * module follows: a browser may drop the message that holds it.
 * @typedef {{ type: "index", index: Index | null, follows: boolean }} IndexMessage
 * @typedef {{ type: "bytes", bytes: Uint8Array<ArrayBuffer> } | { type: "bytes", error: string }} BytesMessage
 * @typedef {{ type: "module", module: WebAssembly.Module | null } | { type: "end" }} ModuleMessage
 * What the worker receives.
 * @typedef {{ shipped: Promise<Shipped | null>, module: Promise<WebAssembly.Module | null> }} Received
 */

const GZIP = [0x1f, 0x8b];
const SNAPSHOT = [0x00, 0x73, 0x6e, 0x70];
const WASM = "pyodide.asm.wasm";

/** Fetch what a site ships, and send it to a worker's `receiveShipped`. Never rejects.
 * @param {{ pyodide: string, wheel: string }} place @param {MessagePort} port @param {AbortSignal} signal */
export async function sendShipped(place, port, signal) {
  /** @param {IndexMessage | BytesMessage | ModuleMessage} message @param {Transferable[]} [transfer] */
  const send = (message, transfer = []) => port.postMessage(message, transfer);
  const compiling = compilePyodide(place.pyodide, signal).then((module) => {
    send({ type: "module", module });
    send({ type: "end" });
  });
  try {
    const { index, bytes } = await findShipped(place, signal);
    send({ type: "index", index, follows: bytes !== null });
    await bytes?.then(
      (whole) => send({ type: "bytes", bytes: whole }, [whole.buffer]),
      (error) => send({ type: "bytes", error: textOf(error) }),
    );
  } catch {
    send({ type: "index", index: null, follows: false }); // the worker asks again, and says what is wrong
  }
  await compiling;
}

/** What another thread has sent by `sendShipped`: null where it could not fetch the index, and where it could
 * not compile Pyodide's WebAssembly.
 * @param {MessagePort} port @returns {Received} */
export function receiveShipped(port) {
  /** @type {Map<string, (message: any) => void>} */
  const waiting = new Map();
  const message = (/** @type {string} */ type) => new Promise((resolve) => waiting.set(type, resolve));
  const [index, bytes, module, end] = ["index", "bytes", "module", "end"].map(message);
  port.onmessage = ({ data }) => waiting.get(data.type)?.(data);
  return {
    shipped: index.then(({ index, follows }) => index && { index, bytes: follows ? bytes.then(bytesOf) : null }),
    module: Promise.race([module, end]).then(({ module }) => module ?? null),
  };
}

/** The URL of Pyodide's WebAssembly. @param {string} folder */
export function pyodideWasm(folder) {
  return new URL(WASM, folder).href;
}

/** Pyodide's WebAssembly, which it does not begin to compile before its snapshot is there; null where this
 * fails: then Pyodide does it, and reports what is wrong. @param {string} folder @param {AbortSignal} signal
 * @returns {Promise<WebAssembly.Module | null>} */
async function compilePyodide(folder, signal) {
  try {
    return await WebAssembly.compileStreaming(fetch(pyodideWasm(folder), { signal }));
  } catch {
    return null;
  }
}

/** @param {BytesMessage} message */
function bytesOf(message) {
  if ("error" in message) throw new Error(message.error);
  return message.bytes;
}

/** @param {{ pyodide: string, wheel: string }} place @param {AbortSignal} [signal] @returns {Promise<Shipped>} */
export async function findShipped({ pyodide, wheel }, signal) {
  const [index, { version }] = await Promise.all([fetchIndex(wheel, signal), pyodideModule(pyodide)]);
  const { snapshot } = index;
  if (!snapshot || snapshot.pyodide !== version) return { index, bytes: null };
  const bytes = fetchSnapshot(new URL(snapshot.file, wheel), snapshot, signal);
  bytes.catch(() => {}); // awaited later, by Pyodide
  return { index, bytes };
}

/** @param {string} folder */
export async function pyodideModule(folder) {
  try {
    return await import(/* @vite-ignore */ `${folder}pyodide.mjs`);
  } catch (error) {
    const what = `Pyodide did not come from ${folder} (${textOf(error)}).`;
    throw new BasculeError({ category: "setup", what, hint: "Give its URL: new BasculeClient({ pyodide: URL })." });
  }
}

/** The index, or one made for a wheel that is named itself. @param {string} url
 * @param {AbortSignal} [signal] @returns {Promise<Index>} */
export async function fetchIndex(url, signal) {
  return new URL(url).pathname.endsWith(".json") ? (await fetched(url, signal)).json() : { wheel: url };
}

/** @param {Index} index @param {string} url of the index */
export async function fetchWheel({ wheel }, url) {
  return (await fetched(new URL(wheel, url).href)).arrayBuffer();
}

/** @param {string} url @param {AbortSignal} [signal] */
async function fetched(url, signal) {
  const answer = await fetch(url, { signal }).catch(() => null);
  if (answer?.ok) return answer;
  const what = `The package did not come from ${url} (${answer ? answer.status : "no answer"}).`;
  throw new BasculeError({ category: "setup", what, hint: "Give its URL: new BasculeClient({ wheel: URL })." });
}

/** The bytes of a snapshot; throws where they do not match the index.
 * @param {URL} url @param {Snapshot} snapshot @param {AbortSignal} [signal] */
export async function fetchSnapshot(url, { sha256, nbytes }, signal) {
  const answer = (await keptFor(url)) ?? (await fetch(url, { signal }));
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

/** The copy of offline.js from the last visit, which takes half the time if its service worker does not pass it
 * on. @param {URL} url */
async function keptFor(url) {
  return globalThis.caches?.match(url.href).catch(() => undefined); // storage may be blocked
}

/** Pyodide checks it only after it has allocated a memory of that size, and hangs if it cannot.
 * @template {Uint8Array} T @param {T} bytes @returns {T} */
export function checked(bytes) {
  if (!beginsWith(bytes, SNAPSHOT)) throw new Error("it is no snapshot");
  return bytes;
}

/** @param {Uint8Array} bytes @param {number[]} start */
function beginsWith(bytes, start) {
  return start.every((byte, at) => bytes[at] === byte);
}

/** @param {unknown} error */
function textOf(error) {
  return error instanceof Error ? error.message : String(error);
}
