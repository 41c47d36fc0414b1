// Memory snapshots of Python that this browser has made (snapshot-worker.js), cached like models' files:
// in chunks named by their hash, which the journal lists, evicts and removes.

import { chunkLength, isSnapshot, Journal, keyOf, sha256, SNAPSHOT } from "./bridge/journal.js";
import { openStore } from "./bridge/store.js";

/** @typedef {import("./bridge/journal.js").Entry} Entry */

const FORMAT = 1; // of what a key stands for
const CHUNK_NBYTES = 4 << 20;
const MAX_NBYTES = 256 << 20;
/** With one that another page of this origin may use, or the one before an update. */
const MAX_KEPT = 2;

/** The name of the snapshot of this Pyodide with this wheel in this browser. Pyodide's module holds its
 * version and the build that its other files must be of. @param {string} pyodide the folder's URL
 * @param {ArrayBuffer} wheel @returns {Promise<string>} */
export async function snapshotKey(pyodide, wheel) {
  const answer = await fetch(`${pyodide}pyodide.mjs`);
  if (!answer.ok) throw new Error(`pyodide.mjs did not come (${answer.status})`);
  const files = [await answer.arrayBuffer(), wheel].map((file) => sha256(new Uint8Array(file)));
  return keyOf(JSON.stringify([FORMAT, ...(await Promise.all(files)), navigator.userAgent]));
}

/** Null where this browser caches nothing: no storage works, or the page is not secure.
 * @returns {Promise<Snapshots | null>} */
export async function openSnapshots() {
  if (!globalThis.crypto?.subtle) return null;
  const idb = () => import(/* @vite-ignore */ new URL("./vendor/idb.js", import.meta.url).href);
  const { store } = await openStore("auto", idb);
  return store && new Snapshots(new Journal(store));
}

export class Snapshots {
  #journal;

  /** @param {Journal} journal */
  constructor(journal) {
    this.#journal = journal;
  }

  /** Whether any is cached, of whatever key. */
  async any() {
    return (await this.#journal.entries()).some(({ url }) => isSnapshot(url));
  }

  /** The entry of a key, complete or not. @param {string} key @returns {Promise<Entry | null>} */
  async find(key) {
    const entry = await this.#journal.load(await keyOf(SNAPSHOT + key));
    return entry?.url === SNAPSHOT + key ? entry : null;
  }

  /** Its bytes. Throws where they are not those that were stored. @param {Entry} entry */
  async read({ url, nbytes, chunkNbytes, hashes }) {
    if (hashes.includes("") || !nbytes || nbytes > MAX_NBYTES) throw new Error("it was not kept whole");
    const bytes = new Uint8Array(nbytes);
    const reading = hashes.map(async (hash, index) => {
      const place = bytes.subarray(index * chunkNbytes, index * chunkNbytes + chunkLength({ nbytes, chunkNbytes }, index));
      const chunk = await this.#journal.store.get(`c-${hash}`, place);
      if (!chunk) throw new Error("a part of it is missing");
      if (chunk.length !== place.length || (await sha256(chunk)) !== hash) throw new Error("a part of it is damaged");
      if (chunk.buffer !== bytes.buffer) place.set(chunk);
    });
    await Promise.all(reading);
    this.#journal.touch(await keyOf(url)).catch(() => {}); // for the next eviction: nobody waits for it
    return bytes;
  }

  /** Store one, and drop all but the newest few. Nothing else is evicted for it, and nothing of it stays where
   * it does not fit: then this throws. @param {string} key @param {Uint8Array<ArrayBuffer>} bytes */
  async store(key, bytes) {
    const url = SNAPSHOT + key;
    const id = await keyOf(url);
    await this.drop(key);
    try {
      await this.#dropOld(MAX_KEPT - 1);
      await this.checkRoom(bytes.length);
      await this.#journal.touch(id);
      await this.#write(id, url, bytes);
    } catch (error) {
      await this.drop(key);
      throw error;
    }
  }

  /** @param {string} key */
  async drop(key) {
    await this.#journal.remove([await keyOf(SNAPSHOT + key)]);
  }

  /** Throws where so many bytes do not fit. @param {number} nbytes */
  async checkRoom(nbytes) {
    const { free } = await this.#journal.space(Infinity);
    if (free < nbytes) throw new Error(`there is no room for it: ${(nbytes / 1e6).toFixed(0)} MB`);
  }

  /** Chunk by chunk; the entry names each that was written, so that none is ever without an owner.
   * @param {string} id @param {string} url @param {Uint8Array<ArrayBuffer>} bytes */
  async #write(id, url, bytes) {
    const count = Math.ceil(bytes.length / CHUNK_NBYTES);
    /** @type {Entry} */
    const entry = {
      ...{ v: 1, seq: 0, url, nbytes: bytes.length, etag: "", modified: "", chunkNbytes: CHUNK_NBYTES },
      ...{ hashes: new Array(count).fill(""), sha256: await sha256(bytes), missing: false },
    };
    for (let index = 0; index < count; index += 1) {
      const chunk = bytes.slice(index * CHUNK_NBYTES, (index + 1) * CHUNK_NBYTES);
      const hash = await sha256(chunk);
      await this.#journal.store.put(`c-${hash}`, chunk);
      entry.hashes[index] = hash;
      await this.#journal.save(id, entry);
    }
  }

  /** @param {number} count */
  async #dropOld(count) {
    const all = (await this.#journal.entries()).filter(({ url }) => isSnapshot(url));
    await this.#journal.remove(all.slice(0, Math.max(0, all.length - count)).map(({ key }) => key));
  }
}
