// What is kept of one file, and who may touch it: its journal entry, its chunks, and the browser's locks
// that tabs share. Without a store everything answers as if nothing were kept. It imports nothing (see
// gpu.js).

/**
 * @typedef {import("./journal.js").Entry} Entry
 * @typedef {import("./fetcher.js").Shared} Shared
 */

const SILENCE_MS = 10_000;
const BEAT_MS = 1000;
const SILENT = Symbol("silent");

function silence() {
  return new Promise((resolve) => setTimeout(() => resolve(SILENT), SILENCE_MS));
}

/** One file's place in the store. */
export class Shelf {
  #url;
  #shared;
  #journal;
  #key = "";
  #roomMade = false;
  #unlock = () => {};
  #unuse = () => {};
  /** @type {Promise<void> | null} */
  #locking = null;
  /** What other tabs and workers say that they have kept. @type {BroadcastChannel | null} */
  #channel = null;
  #news = 0;
  #seen = 0;
  #hear = () => {};
  #beaten = 0;
  locked = false;
  /** Bytes that the store has given since the file was closed last. */
  given = 0;

  /** @param {string} url @param {Shared} shared */
  constructor(url, shared) {
    this.#url = url;
    this.#shared = shared;
    this.#journal = shared.journal;
  }

  get keeps() {
    return this.#journal !== null;
  }

  /** Note that the file is in use, so that no tab evicts it. @param {AbortSignal} signal */
  async open(signal) {
    this.#key ||= await this.#shared.keyOf(this.#url);
    this.#unuse();
    this.#unuse = await this.#request(`bascule:use:${this.#key}`, "shared", signal);
    if (this.#journal && !this.#channel && globalThis.BroadcastChannel) {
      this.#channel = new BroadcastChannel(`bascule:${this.#key}`);
      this.#channel.onmessage = () => {
        this.#news += 1;
        this.#hear();
      };
    }
    await this.#journal?.touch(this.#key).catch(() => {});
    return this.load();
  }

  /** @returns {Promise<Entry | null>} */
  async load() {
    return (await this.#journal?.load(this.#key)) ?? null;
  }

  /** @param {Entry} entry */
  async save(entry) {
    await this.#journal?.save(this.#key, entry).catch(() => {});
  }

  /** Drop all that is kept of the file. */
  async clear() {
    if (this.#key) await this.#journal?.remove([this.#key]).catch(() => {});
  }

  /** A chunk whose hash is right, or null; it may lie in `into`. @param {string} hash
   * @param {number} nbytes @param {Uint8Array<ArrayBuffer>} into */
  async get(hash, nbytes, into) {
    const store = this.#journal?.store;
    const bytes = hash && store ? await store.get(`c-${hash}`, into).catch(() => null) : null;
    if (!bytes) return null;
    this.given += bytes.length;
    if (bytes.length === nbytes && (await this.#shared.sha256(bytes)) === hash) return bytes;
    this.#shared.warn(`A chunk of ${this.#url} is damaged in the cache; it is fetched again.`);
    await store?.remove(`c-${hash}`).catch(() => {});
    return null;
  }

  /** Keep a chunk, and that the file has it. @param {string} hash
   * @param {Uint8Array<ArrayBuffer>} bytes @param {Entry} entry */
  async put(hash, bytes, entry) {
    if (!this.#journal || !(await this.#room(entry))) return;
    try {
      await this.#journal.store.put(`c-${hash}`, bytes);
      await this.#journal.save(this.#key, entry);
      this.#channel?.postMessage(hash);
    } catch (error) {
      this.#stop(`the store took no more (${/** @type {Error} */ (error).message})`);
    }
  }

  /** One tab or worker at a time fetches the file: until it is this one (then `locked`), or until
   * another has brought something. @param {AbortSignal} signal */
  async turn(signal) {
    if (this.locked) return;
    if (this.#news === this.#seen) {
      this.#locking ??= this.#lock(signal).finally(() => (this.#locking = null));
      this.#locking.catch(() => {}); // it may end when nobody waits for it any more
      const heard = new Promise((resolve) => (this.#hear = () => resolve(true)));
      if (await Promise.race([this.#locking, heard, silence()]) === SILENT) this.#goAlone();
    }
    this.#seen = this.#news;
  }

  /** Whoever holds the lock is frozen, or its network is: what is fetched twice does no harm. */
  #goAlone() {
    this.locked = true;
    this.#unlock = () => {
      this.locked = false;
      this.#unlock = () => {};
    };
  }

  /** @param {AbortSignal} signal */
  async #lock(signal) {
    const unlock = await this.#request(`bascule:load:${this.#key}`, "exclusive", signal);
    this.locked = true;
    this.#unlock = () => {
      this.locked = false;
      this.#unlock = () => {};
      unlock();
    };
  }

  /** Bytes come: whoever waits for a chunk of a slow network need not lose patience. */
  beat() {
    const now = performance.now();
    if (now - this.#beaten < BEAT_MS) return;
    this.#beaten = now;
    this.#channel?.postMessage("");
  }

  unlock() {
    this.#unlock();
  }

  /** The file is in use no longer. */
  close() {
    this.#unlock();
    this.#unuse();
    this.#unuse = () => {};
    this.#channel?.close();
    this.#channel = null;
    this.given = 0;
  }

  /** Room for all that is missing is made before the first chunk is kept. @param {Entry} entry */
  async #room(entry) {
    if (this.#roomMade || !this.#journal) return this.#roomMade;
    const missing = entry.hashes.filter((hash) => !hash).length * entry.chunkNbytes;
    const lacking = await this.#journal.makeRoom(Math.min(missing, entry.nbytes), this.#shared.mostNbytes);
    this.#roomMade = lacking <= 0;
    if (!this.#roomMade) this.#stop(`${(lacking / 1e6).toFixed(1)} MB too little room`);
    return this.#roomMade;
  }

  /** @param {string} why */
  #stop(why) {
    this.#shared.warn(`${this.#url} is not kept for the next visit: ${why}.`);
    this.#journal = null;
  }

  /** A lock of the browser, shared by all tabs; nothing where there are none, or nothing to share.
   * @param {string} name @param {LockMode} mode @param {AbortSignal} signal
   * @returns {Promise<() => void>} lets go of it */
  #request(name, mode, signal) {
    const { locks } = navigator;
    if (!locks || !this.#journal) return Promise.resolve(() => {});
    return new Promise((resolve, reject) => {
      const hold = () => new Promise((release) => resolve(() => release(undefined)));
      locks.request(name, { mode, signal }, hold).catch(() => {
        reject(new this.#shared.http.Fault("cancelled", "the load was cancelled", 0));
      });
    });
  }
}
