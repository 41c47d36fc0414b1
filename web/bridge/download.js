// One file by chunks: from the store where a chunk is there and its hash is right, else from the
// network, and then into the store before anybody sees it. It imports nothing (see gpu.js).

/**
 * @typedef {import("./journal.js").Entry} Entry
 * @typedef {import("./manifest.js").Expected} Expected
 * @typedef {import("./fetcher.js").Shared} Shared
 * @typedef {{ next: number, last: number, parts: AsyncGenerator<Uint8Array<ArrayBuffer>>,
 *   rest: Uint8Array<ArrayBuffer> }} Run
 */

const REVALIDATE_MS = 3000;
// Without a store, chunks fetched ahead of time wait in memory: so many, and no more.
const MOST_HELD = 2;

/** A file at a URL, and what is kept of it. */
export class CachedFile {
  /** @type {Entry | null} */
  #entry = null;
  /** @type {Expected | null} */
  #expected = null;
  #key = "";
  #shared;
  #journal;
  #remote;
  /** @type {Run | null} */
  #run = null;
  /** The chunk that will be asked for after another. @type {Map<number, number>} */
  #after = new Map();
  /** @type {Map<number, Uint8Array<ArrayBuffer>>} */
  #held = new Map();
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();
  #consumers = 0;
  /** @type {Uint8Array<ArrayBuffer>} */
  #buffer = new Uint8Array(0);
  /** @type {Promise<void> | null} */
  #opened = null;
  #abort = new AbortController();
  #unlock = () => {};
  #unuse = () => {};
  #locked = false;
  #roomMade = false;
  /** Bytes that have come of the chunk that is not whole yet. */
  filling = 0;
  /** Bytes that the store has given since the file was closed last. */
  cached = 0;

  /** @param {string} url @param {Shared} shared */
  constructor(url, shared) {
    this.url = url;
    this.#shared = shared;
    this.#journal = shared.journal;
    this.#remote = new shared.http.Remote(url, shared.patience);
  }

  get nbytes() {
    return this.#known.nbytes;
  }

  get chunkNbytes() {
    return this.#known.chunkNbytes;
  }

  get count() {
    return this.#known.hashes.length;
  }

  get isOpen() {
    return this.#entry !== null && this.#entry.nbytes >= 0;
  }

  /** Bytes of all chunks that have come. */
  get kept() {
    const { hashes } = this.#known;
    return hashes.reduce((sum, hash, index) => sum + (hash ? this.#length(index) : 0), this.filling);
  }

  get received() {
    return this.#remote.received;
  }

  get retries() {
    return this.#remote.retries;
  }

  /** Find out the file's version; asked once. @param {Expected | null} expected by a manifest */
  open(expected) {
    this.#opened ??= this.#open(expected).catch((error) => {
      this.#opened = null; // the next one may try again
      throw error;
    });
    return this.#opened;
  }

  /** A run of bytes, through the chunks. @param {number} offset @param {number} nbytes */
  async read(offset, nbytes) {
    const whole = new Uint8Array(nbytes);
    const end = offset + nbytes;
    if (end > this.nbytes) throw this.#fault("source", `it ends ${end - this.nbytes} bytes early`, offset);
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / this.chunkNbytes);
      const start = index * this.chunkNbytes;
      at += await this.#use(index, false, (bytes) => {
        const part = bytes.subarray(at - start, Math.min(bytes.length, end - start));
        whole.set(part, at - offset);
        return part.length;
      });
    }
    return whole;
  }

  /** All bytes of a small file, whose size the server need not tell. @param {number} most */
  async readAll(most) {
    if (this.nbytes > most) throw this.#fault("large", "it is too large for what it should hold", 0);
    if (this.nbytes >= 0) return this.read(0, this.nbytes);
    const bytes = await this.#remote.whole(most, this.#abort.signal);
    await this.#lock();
    const version = /** @type {import("./http.js").Version} */ (this.#remote.version);
    this.#entry = this.#fresh({ ...version, nbytes: bytes.length });
    for (let index = 0; index < this.count; index++) {
      const start = index * this.chunkNbytes;
      await this.#keep(index, bytes.slice(start, start + this.chunkNbytes));
    }
    return bytes;
  }

  /**
   * Chunks in the order given, each handed to `use` before the next is fetched; its bytes last until
   * `use` has ended. With `sha256` the file's hash is checked on the way, which takes every chunk.
   * @param {number[]} order @param {string} sha256
   * @param {(index: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>} use
   */
  async stream(order, sha256, use) {
    this.#consumers += 1;
    const prove = sha256 !== "" && !this.#expected && this.#known.sha256 !== sha256;
    // Without a store nothing could be read a second time for its hash.
    if (prove && !this.#journal) order = [...order].sort((a, b) => a - b);
    const inOrder = order.length === this.count && order.every((index, at) => index === at);
    const hasher = prove ? await this.#shared.hasher() : null;
    this.#after = new Map(order.slice(1).map((next, at) => [order[at], next]));
    try {
      for (const index of order) {
        await this.#use(index, true, async (bytes) => {
          if (inOrder) hasher?.update(bytes);
          await use(index, bytes);
        });
      }
      if (hasher) await this.#prove(hasher, inOrder, sha256);
    } finally {
      this.#consumers -= 1;
      this.#endRun();
      this.#buffer = new Uint8Array(0);
      this.#unlock();
    }
  }

  /** Fetch ahead of the first reader, into the store; stops as soon as there is one. */
  async prefetch() {
    this.#after = new Map(this.#known.hashes.map((_, index) => [index, index + 1]));
    for (let index = 0; index < this.count; index++) {
      if (this.#consumers || (!this.#journal && this.#held.size >= MOST_HELD)) return;
      if (this.#hash(index) || this.#held.has(index)) continue;
      await this.#use(index, false, (bytes) => {
        if (!this.#journal) this.#held.set(index, bytes.slice());
      });
    }
    this.#endRun();
    this.#unlock();
  }

  /** Stop, and let other tabs go on. What was kept stays. */
  close() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#endRun();
    this.#held.clear();
    this.#opened = null;
    this.#unlock();
    this.#unuse();
    this.cached = this.#remote.received = this.#remote.retries = 0;
  }

  /** Drop what is kept of this file. */
  async forget() {
    this.#endRun();
    this.#opened = null;
    this.#held.clear();
    if (this.#key) await this.#journal?.remove([this.#key]);
  }

  /** @returns {Entry} */
  get #known() {
    if (!this.#entry) throw new Error("the file is used before it is open");
    return this.#entry;
  }

  /** @param {Expected | null} expected */
  async #open(expected) {
    this.#expected = expected;
    this.#key ||= await this.#shared.keyOf(this.url);
    this.#unuse();
    this.#unuse = (await this.#request(`bascule:use:${this.#key}`, "shared")) ?? (() => {});
    const kept = (await this.#journal?.load(this.#key)) ?? null;
    if (expected) {
      const same = kept && kept.nbytes === expected.nbytes && kept.chunkNbytes === expected.chunkNbytes;
      this.#entry = same ? kept : this.#fresh({ ...expected, etag: "", modified: "" });
    } else {
      this.#entry = await this.#revalidated(kept);
    }
    if (this.#known.missing) throw this.#fault("missing", "there is no such file", 0);
    await this.#journal?.touch(this.#key).catch(() => {});
  }

  /** What is kept, if the server still has that version or cannot be asked. @param {Entry | null} kept */
  async #revalidated(kept) {
    try {
      this.#remote.version = null;
      const version = await this.#remote.check(this.#abort.signal, kept ? REVALIDATE_MS : undefined);
      if (!kept || kept.missing || !this.#shared.http.agree(kept, version)) {
        if (kept) await this.#journal?.remove([this.#key]);
        return this.#fresh(version);
      }
      this.#remote.version = { nbytes: kept.nbytes, etag: kept.etag, modified: kept.modified };
      return kept;
    } catch (error) {
      const { kind } = /** @type {import("./http.js").Fault} */ (error);
      if (kind === "missing") await this.#noteMissing();
      if (kind !== "source" || !kept) throw error;
      this.#remote.version = { nbytes: kept.nbytes, etag: kept.etag, modified: kept.modified };
      return kept;
    }
  }

  /** So that a page without a network knows which optional files there are none of. */
  async #noteMissing() {
    const entry = { ...this.#fresh({ nbytes: 0, etag: "", modified: "" }), missing: true };
    await this.#journal?.save(this.#key, entry).catch(() => {});
  }

  /** @param {{ nbytes: number, etag: string, modified: string, chunkNbytes?: number }} version
   * @returns {Entry} */
  #fresh({ nbytes, etag, modified, chunkNbytes = this.#shared.chunkNbytes }) {
    const hashes = Array.from({ length: Math.max(0, Math.ceil(nbytes / chunkNbytes)) }, () => "");
    const { url } = this;
    return { v: 1, seq: 0, url, nbytes, etag, modified, chunkNbytes, hashes, sha256: "", missing: false };
  }

  /** One after another: readers and the prefetch share a buffer and a connection.
   * @template T @param {number} index @param {boolean} last whether a held copy may go
   * @param {(bytes: Uint8Array<ArrayBuffer>) => T | Promise<T>} use @returns {Promise<T>} */
  #use(index, last, use) {
    const work = this.#turn.then(async () => {
      const bytes = await this.#chunk(index);
      if (last) this.#held.delete(index);
      return use(bytes);
    });
    this.#turn = work.catch(() => {});
    return work;
  }

  /** @param {number} index */
  #hash(index) {
    return this.#expected?.hashes[index] || this.#known.hashes[index];
  }

  /** @param {number} index @returns {Promise<Uint8Array<ArrayBuffer>>} */
  async #chunk(index) {
    const held = this.#held.get(index);
    if (held) return held;
    if (!this.#buffer.length) this.#buffer = new Uint8Array(Math.min(this.chunkNbytes, this.nbytes));
    return (await this.#fromStore(index)) ?? (await this.#fromElsewhere(index));
  }

  /** Another tab may be fetching the same file: then wait, and take what it has kept.
   * @param {number} index */
  async #fromElsewhere(index) {
    if (!this.#locked) {
      await this.#lock();
      const kept = await this.#journal?.load(this.#key);
      if (kept && this.#shared.http.agree(kept, this.#known)) this.#entry = kept;
      const found = await this.#fromStore(index);
      if (found) return found;
    }
    return this.#fromNetwork(index);
  }

  /** @param {number} index */
  async #fromStore(index) {
    const hash = this.#hash(index);
    if (!hash || !this.#journal) return null;
    const bytes = await this.#journal.store.get(`c-${hash}`, this.#buffer).catch(() => null);
    if (!bytes) return null;
    this.cached += bytes.length;
    if (bytes.length === this.#length(index) && (await this.#shared.sha256(bytes)) === hash) {
      if (!this.#known.hashes[index]) {
        this.#known.hashes[index] = hash; // another model has brought it
        await this.#journal.save(this.#key, this.#known).catch(() => {});
      }
      return bytes;
    }
    this.#shared.warn(`A chunk of ${this.url} is damaged in the cache; it is fetched again.`);
    await this.#journal.store.remove(`c-${hash}`).catch(() => {});
    return null;
  }

  /** @param {number} index */
  async #fromNetwork(index) {
    const wanted = this.#hash(index);
    for (let tries = 0; ; tries++) {
      const bytes = await this.#pull(index);
      const hash = await this.#shared.sha256(bytes);
      if (!wanted || hash === wanted) {
        await this.#keep(index, bytes, hash);
        return bytes;
      }
      this.#endRun();
      if (tries === 0) continue;
      const promised = this.#expected ? "the manifest" : "the first load";
      const what = `its bytes from ${index * this.chunkNbytes} are not those of ${promised} (SHA-256)`;
      throw this.#fault(this.#expected ? "corrupt" : "changed", what, index * this.chunkNbytes);
    }
  }

  /** The next chunk of the response that is open, or of a new one. @param {number} index */
  async #pull(index) {
    if (this.#run?.next !== index) this.#beginRun(index);
    const run = /** @type {Run} */ (this.#run);
    const buffer = this.#buffer.subarray(0, this.#length(index));
    let filled = 0;
    try {
      while (filled < buffer.length) {
        if (!run.rest.length) run.rest = (await run.parts.next()).value ?? new Uint8Array(0);
        const part = run.rest.subarray(0, buffer.length - filled);
        buffer.set(part, filled);
        filled += part.length;
        this.filling = filled;
        run.rest = run.rest.subarray(part.length);
      }
    } catch (error) {
      this.#endRun();
      throw error;
    } finally {
      this.filling = 0;
    }
    run.next += 1;
    if (run.next > run.last) this.#endRun();
    return buffer;
  }

  /** One request serves all chunks up to one that is there, or that is not asked for next.
   * @param {number} index */
  #beginRun(index) {
    this.#endRun();
    let last = index;
    const lacks = (/** @type {number} */ i) => i < this.count && !this.#known.hashes[i] && !this.#held.has(i);
    while (this.#after.get(last) === last + 1 && lacks(last + 1)) last += 1;
    const end = Math.min(this.nbytes, (last + 1) * this.chunkNbytes);
    const parts = this.#remote.read(index * this.chunkNbytes, end, this.#abort.signal);
    this.#run = { next: index, last, parts, rest: new Uint8Array(0) };
  }

  #endRun() {
    this.#run?.parts.return(undefined).catch(() => {});
    this.#run = null;
  }

  /** @param {number} index @param {Uint8Array<ArrayBuffer>} bytes @param {string} [hash] */
  async #keep(index, bytes, hash) {
    const entry = this.#known;
    entry.hashes[index] = hash ?? (await this.#shared.sha256(bytes));
    if (!this.#journal || !(await this.#room())) return;
    try {
      await this.#journal.store.put(`c-${entry.hashes[index]}`, bytes);
      await this.#journal.save(this.#key, entry);
    } catch (error) {
      this.#stopKeeping(`the store took no more (${/** @type {Error} */ (error).message})`);
    }
  }

  /** Room for all that is missing is made before the first chunk is kept. */
  async #room() {
    if (this.#roomMade || !this.#journal) return this.#roomMade;
    const missing = this.#known.hashes.filter((hash) => !hash).length * this.chunkNbytes;
    const lacking = await this.#journal.makeRoom(Math.min(missing, this.nbytes), this.#shared.mostNbytes);
    this.#roomMade = lacking <= 0;
    if (!this.#roomMade) this.#stopKeeping(`${(lacking / 1e6).toFixed(1)} MB too little room`);
    return this.#roomMade;
  }

  /** @param {string} why */
  #stopKeeping(why) {
    this.#shared.warn(`${this.url} is not kept for the next visit: ${why}.`);
    this.#journal = null;
  }

  /** @param {import("./fetcher.js").Hasher} hasher @param {boolean} hashed @param {string} sha256 */
  async #prove(hasher, hashed, sha256) {
    for (let index = 0; !hashed && index < this.count; index++) {
      await this.#use(index, true, (bytes) => void hasher.update(bytes));
    }
    const found = hasher.digest("hex");
    if (found !== sha256) {
      await this.forget();
      throw this.#fault("corrupt", `its SHA-256 is ${found}, and ${sha256} was promised`, 0);
    }
    this.#known.sha256 = sha256;
    await this.#journal?.save(this.#key, this.#known).catch(() => {});
  }

  /** @param {number} index */
  #length(index) {
    return this.#shared.chunkLength(this.#known, index);
  }

  async #lock() {
    if (this.#locked) return;
    const unlock = await this.#request(`bascule:load:${this.#key}`, "exclusive");
    this.#locked = true;
    this.#unlock = () => {
      this.#locked = false;
      this.#unlock = () => {};
      unlock?.();
    };
  }

  /** A lock of the browser, shared by all tabs; null where there are none (or nothing to share).
   * @param {string} name @param {LockMode} mode @returns {Promise<(() => void) | null>} */
  #request(name, mode) {
    const { locks } = navigator;
    if (!locks || !this.#journal) return Promise.resolve(null);
    const { signal } = this.#abort;
    return new Promise((resolve, reject) => {
      const hold = () => new Promise((release) => resolve(() => release(undefined)));
      locks.request(name, { mode, signal }, hold).catch(() => {
        reject(this.#fault("cancelled", "the load was cancelled", 0));
      });
    });
  }

  /** @param {string} kind @param {string} what @param {number} offset */
  #fault(kind, what, offset) {
    return new this.#shared.http.Fault(kind, what, offset);
  }
}
