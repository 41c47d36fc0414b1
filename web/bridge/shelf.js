// One file in the cache: its journal entry, its chunks, and the browser's locks that tabs share. Without
// a store it behaves as an empty cache. It imports nothing (see gpu.js).

/**
 * @typedef {import("./journal.js").Entry} Entry
 * @typedef {import("./fetcher.js").Shared} Shared
 */

/** Bytes written between two checks of the free space. */
const CREDIT_NBYTES = 64 << 20;
/** Bytes that may be held in memory until the model's header was read. */
const MAX_PENDING_NBYTES = 32 << 20;
const BEAT_MS = 1000;
const SILENT = Symbol("silent");

/** @param {number} ms */
function afterSilence(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(SILENT), ms));
}

/** One file in the cache. */
export class Shelf {
  #url;
  #shared;
  #journal;
  #key = "";
  /** Bytes of the free space, as last checked, that are not written yet. */
  #credit = 0;
  /** Nothing is evicted for a model before its header was read, so that a server that only claims to
   * have a model cannot evict others. */
  #trusted = false;
  /** Chunks to store once it was, by hash. @type {Map<string, Uint8Array<ArrayBuffer>>} */
  #pending = new Map();
  #unlock = () => {};
  #unuse = () => {};
  /** @type {Promise<void> | null} */
  #locking = null;
  /** Messages of other tabs and workers about chunks they have stored. @type {BroadcastChannel | null} */
  #channel = null;
  #nMessages = 0;
  #nSeen = 0;
  #notify = () => {};
  #lastBeat = 0;
  /** Whether the browser has granted the lock, and whether it is still needed. */
  #granted = false;
  #needed = false;
  /** Whether no other tab or worker fetches the file. Set in `turn` alone, whose caller then loads the
   * journal entry again: another may have stored more chunks meanwhile. */
  locked = false;
  /** Bytes read from the store since the file was last closed. */
  cachedNbytes = 0;

  /** @param {string} url @param {Shared} shared */
  constructor(url, shared) {
    this.#url = url;
    this.#shared = shared;
    this.#journal = shared.journal;
  }

  /** Whether chunks are held in memory because storing them would evict others too early. */
  get hasPending() {
    return this.#pending.size > 0;
  }

  /** Whether there is a store. */
  get isStored() {
    return this.#journal !== null;
  }

  /** Mark the file as in use, so that no tab evicts it, and load its entry. @param {AbortSignal} signal */
  async open(signal) {
    this.#key ||= await this.#shared.keyOf(this.#url);
    this.#unuse();
    this.#unuse = await this.#request(`bascule:use:${this.#key}`, "shared", signal);
    if (this.#journal && !this.#channel && globalThis.BroadcastChannel) {
      this.#channel = new BroadcastChannel(`bascule:${this.#key}`);
      this.#channel.onmessage = () => {
        this.#nMessages += 1;
        this.#notify();
      };
    }
    this.#journal?.touch(this.#key).catch(() => {}); // for the next eviction; not awaited
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

  /** Remove the file from the cache. */
  async clear() {
    if (this.#key) await this.#journal?.remove([this.#key]).catch(() => {});
  }

  /** Read a chunk with the right hash, or null; it may be in `into`. @param {string} hash
   * @param {number} nbytes @param {Uint8Array<ArrayBuffer>} into */
  async get(hash, nbytes, into) {
    const pending = this.#pending.get(hash);
    if (pending && pending.length === nbytes) {
      into.set(pending);
      return into.subarray(0, nbytes);
    }
    const store = this.#journal?.store;
    const bytes = hash && store ? await store.get(`c-${hash}`, into).catch(() => null) : null;
    if (!bytes) return null;
    this.cachedNbytes += bytes.length;
    if (bytes.length === nbytes && (await this.#shared.sha256(bytes)) === hash) return bytes;
    this.#shared.warn(`A chunk of ${this.#url} is damaged in the cache; it is fetched again.`);
    await store?.remove(`c-${hash}`).catch(() => {});
    return null;
  }

  /** Store a chunk, and the file's entry with it. @param {string} hash
   * @param {Uint8Array<ArrayBuffer>} bytes @param {Entry} entry */
  async put(hash, bytes, entry) {
    if (!this.#journal) return;
    try {
      if (!(await this.#hasSpace(hash, bytes, entry))) return;
      await this.#journal.store.put(`c-${hash}`, bytes);
      await this.#journal.save(this.#key, entry);
      this.#channel?.postMessage(hash);
    } catch (error) {
      this.#stopStoring(`writing to the store failed (${/** @type {Error} */ (error).message})`);
    }
  }

  /** The model's header was read: store the chunks that were held back until then. @param {Entry} entry */
  async trust(entry) {
    this.#trusted = true;
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const [hash, bytes] of pending) await this.put(hash, bytes, entry);
  }

  /** Wait until this tab or worker is the one that fetches the file (then `locked`), or until another
   * one has stored a chunk. @param {AbortSignal} signal */
  async turn(signal) {
    if (this.locked) return;
    this.#needed = true;
    if (!this.#granted && this.#nMessages === this.#nSeen) {
      this.#locking ??= this.#lock(signal).finally(() => (this.#locking = null));
      this.#locking.catch(() => {}); // it may fail after nobody awaits it any more
      const heard = new Promise((resolve) => (this.#notify = () => resolve(true)));
      const silent = afterSilence(this.#shared.retry.silenceMs);
      if (await Promise.race([this.#locking, heard, silent]) === SILENT) this.#fetchUnlocked();
    }
    this.#nSeen = this.#nMessages;
    this.locked ||= this.#granted;
  }

  /** Fetch without the lock: its holder or its network is frozen, and fetching twice does no harm. */
  #fetchUnlocked() {
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
    if (!this.#needed) this.#unlock();
  }

  /** Announce that bytes arrive, so that others wait for a chunk of a slow network. */
  beat() {
    const now = performance.now();
    if (now - this.#lastBeat < BEAT_MS) return;
    this.#lastBeat = now;
    this.#channel?.postMessage("");
  }

  unlock() {
    this.#needed = false;
    this.#unlock();
  }

  /** Mark the file as no longer in use. */
  close() {
    this.unlock();
    this.#unuse();
    this.#unuse = () => {};
    this.#channel?.close();
    this.#channel = null;
    this.#trusted = false;
    this.#pending.clear();
    this.cachedNbytes = 0;
  }

  /** Whether there is space for a chunk now. Others are evicted for bytes that have arrived, not for
   * bytes that are announced, and none if evicting all of them would not be enough for the file.
   * @param {string} hash @param {Uint8Array<ArrayBuffer>} bytes @param {Entry} entry */
  async #hasSpace(hash, bytes, entry) {
    const nbytes = bytes.length;
    if (nbytes > this.#credit) {
      const journal = /** @type {import("./journal.js").Journal} */ (this.#journal);
      const { maxNbytes } = this.#shared;
      const { free, freeable } = await journal.space(maxNbytes);
      const missing = entry.hashes.filter((each) => !each).length * entry.chunkNbytes + nbytes;
      let lacking = Math.min(missing, entry.nbytes) - freeable;
      if (lacking <= 0 && nbytes > free) {
        if (!this.#trusted) return this.#holdBack(hash, bytes);
        lacking = await journal.makeRoom(nbytes, maxNbytes);
      }
      if (lacking > 0) {
        this.#stopStoring(`not enough space (${(lacking / 1e6).toFixed(1)} MB missing)`);
        return false;
      }
      this.#credit = Math.max(nbytes, Math.min(free, CREDIT_NBYTES));
    }
    this.#credit -= nbytes;
    return true;
  }

  /** @param {string} hash @param {Uint8Array<ArrayBuffer>} bytes */
  #holdBack(hash, bytes) {
    const nbytes = [...this.#pending.values()].reduce((sum, { length }) => sum + length, bytes.length);
    if (nbytes <= MAX_PENDING_NBYTES) this.#pending.set(hash, bytes.slice());
    return false;
  }

  /** @param {string} why */
  #stopStoring(why) {
    this.#shared.warn(`${this.#url} is not cached for the next visit: ${why}.`);
    this.#journal = null;
  }

  /** Request one of the browser's locks, which all tabs share; without locks or a store, do nothing.
   * @param {string} name @param {LockMode} mode @param {AbortSignal} signal
   * @returns {Promise<() => void>} releases it */
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
