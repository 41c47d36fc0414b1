// bascule-manifest.json: the size and the SHA-256 of every chunk of a model folder's files, written by
// `bascule manifest`. py/bascule/weights/manifest.py describes the format. It imports nothing (see gpu.js).

/** @typedef {{ nbytes: number, sha256: string, chunkNbytes: number, hashes: string[] }} Expected */

const HASH = /^[0-9a-f]{64}$/;
const MARKS = new Set(Array.from(",:[{", (mark) => mark.charCodeAt(0)));
// The limit of bascule.base.json_object.
const MAX_ITEMS = 1 << 18;

/** @param {Uint8Array} bytes @returns {Map<string, Expected>} file to what to expect */
export function parseManifest(bytes) {
  // Many servers answer with an HTML page for a missing file.
  if (!new TextDecoder().decode(bytes.subarray(0, 1000)).trimStart().startsWith("{")) return new Map();
  // Checked before parsing: an item takes far more memory parsed than in the file.
  let items = 0;
  for (const byte of bytes) if (MARKS.has(byte)) items += 1;
  if (items > MAX_ITEMS) throw new Error(`it holds more than ${MAX_ITEMS} items`);
  /** @type {any} */
  let fields;
  try {
    fields = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Error("it is damaged or truncated (not JSON)");
  }
  const chunkNbytes = fields?.chunk_nbytes;
  if (fields?.version !== 1 || !Number.isSafeInteger(chunkNbytes) || chunkNbytes < 65536) {
    throw new Error("it is no manifest of version 1");
  }
  if (chunkNbytes > 64 << 20) throw new Error("its chunks are larger than 64 MiB");
  const files = new Map();
  for (const [file, entry] of Object.entries(fields.files ?? {})) {
    const { nbytes, sha256, chunks } = /** @type {any} */ (entry);
    const isValid =
      Number.isSafeInteger(nbytes) &&
      nbytes >= 0 &&
      HASH.test(sha256) &&
      Array.isArray(chunks) &&
      chunks.length === Math.ceil(nbytes / chunkNbytes) &&
      chunks.every((hash) => typeof hash === "string" && HASH.test(hash));
    if (!isValid) throw new Error(`its entry for ${file.slice(0, 80)} is invalid`);
    files.set(file, { nbytes, sha256, chunkNbytes, hashes: chunks });
  }
  return files;
}
