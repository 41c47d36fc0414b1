// What is kept of one file, and who may touch it: its journal entry, its chunks, and the browser's locks
// that tabs share. Without a store everything answers as if nothing were kept. It imports nothing (see
// gpu.js).

/**
 * @typedef {import("./journal.js").Entry} Entry
 * @typedef {import("./fetcher.js").Shared} Shared
 */

/** Between two looks at how much room there is. */
const CREDIT_NBYTES = 64 << 20;
/** What may wait in memory until the model's header was read. */
const MOST_WAITING_NBYTES = 32 << 20;
const BEAT_MS = 1000;
const SILENT = Symbol("silent");

/** @param {number} ms */
function silence(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(SILENT), ms));
}

/** One file's place in the store. */
export class Shelf {
  #url;
  #shared;
  #journal;
  #key = "";
  /** Bytes that there was room for when it was last looked for. */
  #credit = 0;
  /** Nothing is evicted for a model before its header was read: a server that claims to have one
   * removes nothing of others by that. */
  #trusted = false;
  /** Chunks that are kept once it was, by hash. @type {Map<string, Uint8Array<ArrayBuffer>>} */
  #waiting = new Map();
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
  /** Whether the browser has granted the lock, and whether anybody still waits for it. */
  #granted = false;
  #wanted = false;
  /** Whether nobody else fetches the file; it becomes true in `turn` only, after which what is kept is
   * read anew: until then another may have kept more than is known here. */
  locked = false;
  /** Bytes that the store has given since the file was closed last. */
  given = 0;

  /** @param {string} url @param {Shared} shared */
  constructor(url, shared) {
    this.#url = url;
    this.#shared = shared;
    this.#journal = shared.journal;
  }

  /** Whether something could be kept only in the place of others, and may not be yet. */
  get waits() {
    return this.#waiting.size > 0;
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
    this.#journal?.touch(this.#key).catch(() => {}); // for the next eviction: nobody waits for it
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
    const waiting = this.#waiting.get(hash);
    if (waiting && waiting.length === nbytes) {
      into.set(waiting);
      return into.subarray(0, nbytes);
    }
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
    if (!this.#journal) return;
    try {
      if (!(await this.#room(hash, bytes, entry))) return;
      await this.#journal.store.put(`c-${hash}`, bytes);
      await this.#journal.save(this.#key, entry);
      this.#channel?.postMessage(hash);
    } catch (error) {
      this.#stop(`the store took no more (${/** @type {Error} */ (error).message})`);
    }
  }

  /** The model's header was read: keep what has waited for that. @param {Entry} entry */
  async trust(entry) {
    this.#trusted = true;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const [hash, bytes] of waiting) await this.put(hash, bytes, entry);
  }

  /** One tab or worker at a time fetches the file: until it is this one (then `locked`), or until
   * another has brought something. @param {AbortSignal} signal */
  async turn(signal) {
    if (this.locked) return;
    this.#wanted = true;
    if (!this.#granted && this.#news === this.#seen) {
      this.#locking ??= this.#lock(signal).finally(() => (this.#locking = null));
      this.#locking.catch(() => {}); // it may end when nobody waits for it any more
      const heard = new Promise((resolve) => (this.#hear = () => resolve(true)));
      const silent = silence(this.#shared.patience.silenceMs);
      if (await Promise.race([this.#locking, heard, silent]) === SILENT) this.#goAlone();
    }
    this.#seen = this.#news;
    this.locked ||= this.#granted;
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
    this.#granted = true;
    this.#unlock = () => {
      this.locked = this.#granted = false;
      this.#unlock = () => {};
      unlock();
    };
    if (!this.#wanted) this.#unlock(); // what it was for has ended
  }

  /** Bytes come: whoever waits for a chunk of a slow network need not lose patience. */
  beat() {
    const now = performance.now();
    if (now - this.#beaten < BEAT_MS) return;
    this.#beaten = now;
    this.#channel?.postMessage("");
  }

  unlock() {
    this.#wanted = false;
    this.#unlock();
  }

  /** The file is in use no longer. */
  close() {
    this.unlock();
    this.#unuse();
    this.#unuse = () => {};
    this.#channel?.close();
    this.#channel = null;
    this.#trusted = false;
    this.#waiting.clear();
    this.given = 0;
  }

  /** Whether a chunk can be kept now. Others are evicted for bytes that have come, not for bytes that
   * are promised, and none where all of them would not make room for the file.
   * @param {string} hash @param {Uint8Array<ArrayBuffer>} bytes @param {Entry} entry */
  async #room(hash, bytes, entry) {
    const nbytes = bytes.length;
    if (nbytes > this.#credit) {
      const journal = /** @type {import("./journal.js").Journal} */ (this.#journal);
      const { mostNbytes } = this.#shared;
      const { free, most } = await journal.space(mostNbytes);
      const missing = entry.hashes.filter((each) => !each).length * entry.chunkNbytes + nbytes;
      let lacking = Math.min(missing, entry.nbytes) - most;
      if (lacking <= 0 && nbytes > free) {
        if (!this.#trusted) return this.#hold(hash, bytes);
        lacking = await journal.makeRoom(nbytes, mostNbytes);
      }
      if (lacking > 0) {
        this.#stop(`${(lacking / 1e6).toFixed(1)} MB too little room`);
        return false;
      }
      this.#credit = Math.max(nbytes, Math.min(free, CREDIT_NBYTES));
    }
    this.#credit -= nbytes;
    return true;
  }

  /** @param {string} hash @param {Uint8Array<ArrayBuffer>} bytes */
  #hold(hash, bytes) {
    const nbytes = [...this.#waiting.values()].reduce((sum, { length }) => sum + length, bytes.length);
    if (nbytes <= MOST_WAITING_NBYTES) this.#waiting.set(hash, bytes.slice());
    return false;
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
