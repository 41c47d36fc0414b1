// One file by chunks: from the store if a chunk is there and its hash is right, else from the network,
// and then into the store before it is used. It imports nothing (see gpu.js).

/**
 * @typedef {import("./journal.js").Entry} Entry
 * @typedef {import("./manifest.js").Expected} Expected
 * @typedef {import("./fetcher.js").Shared} Shared
 * @typedef {import("./http.js").Version} Version
 * @typedef {{ next: number, last: number, parts: AsyncGenerator<Uint8Array<ArrayBuffer>>,
 *   rest: Uint8Array<ArrayBuffer> }} Run
 */

const REVALIDATE_MS = 3000;
/** 1 TiB by chunks of 4 MiB. A size that a server sends is compared with it before anything is allocated. */
const MAX_CHUNKS = 2 ** 18;
const BEGINNING_NBYTES = 64;
/** Chunks that are read from the store and hashed while another is used; with that one, the most in memory. */
const MAX_AHEAD = 2;

/** A file at a URL, and its cached chunks. */
export class CachedFile {
  #shared;
  #remote;
  #shelf;
  /** @type {Entry | null} */
  #entry = null;
  /** @type {Expected | null} */
  #expected = null;
  /** @type {Promise<void> | null} */
  #opened = null;
  /** @type {Run | null} */
  #run = null;
  /** The chunk that will be requested after another. @type {Map<number, number>} */
  #after = new Map();
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();
  /** @type {Uint8Array<ArrayBuffer>} */
  #buffer = new Uint8Array(0);
  /** The chunk in the buffer: a header is read in parts. @type {{ index: number, bytes: Uint8Array<ArrayBuffer> } | null} */
  #held = null;
  /** Chunks that are being read from the store, by index.
   * @type {Map<number, { buffer: Uint8Array<ArrayBuffer>, reading: Promise<Uint8Array<ArrayBuffer> | null> }>} */
  #early = new Map();
  /** Buffers for such chunks. @type {Uint8Array<ArrayBuffer>[]} */
  #spare = [];
  #abort = new AbortController();
  /** The file's first bytes. @type {Uint8Array<ArrayBuffer> | null} */
  #beginning = null;
  /** Bytes received of the incomplete chunk. */
  filling = 0;

  /** @param {string} url @param {Shared} shared */
  constructor(url, shared) {
    this.url = url;
    this.#shared = shared;
    this.#remote = new shared.http.Remote(url, shared.retry);
    this.#shelf = new shared.shelf.Shelf(url, shared);
  }

  get isOpen() {
    return this.#entry !== null && this.#entry.nbytes >= 0;
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

  /** Bytes of all chunks that are stored or received. */
  get storedNbytes() {
    const { hashes } = this.#known;
    return hashes.reduce((sum, hash, index) => sum + (hash ? this.#length(index) : 0), this.filling);
  }

  /** Whether another worker may be fetching the missing chunks, with one in its memory. */
  get following() {
    return !this.#shelf.locked && this.#known.hashes.includes("");
  }

  /** How many chunks have a buffer: the one that is used, and those that are read ahead. */
  get buffered() {
    return 1 + this.#early.size;
  }

  /** Bytes from the network and from the store, and retries, since the file was last closed. */
  get counts() {
    return { network: this.#remote.received, cached: this.#shelf.cachedNbytes, retries: this.#remote.retries };
  }

  /** Find out the file's version, once. @param {Expected | null} expected by a manifest */
  open(expected) {
    this.#opened ??= this.#open(expected).catch((error) => {
      this.#opened = null; // the next call retries
      throw error;
    });
    return this.#opened;
  }

  /** Read a range of bytes, through the chunks. @param {number} offset @param {number} nbytes */
  async read(offset, nbytes) {
    const result = new Uint8Array(nbytes);
    const end = offset + nbytes;
    if (end > this.nbytes) throw this.#fault("source", `it ends ${end - this.nbytes} bytes early`, offset);
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / this.chunkNbytes);
      const start = index * this.chunkNbytes;
      at += await this.#use(index, (bytes) => {
        const part = bytes.subarray(at - start, Math.min(bytes.length, end - start));
        result.set(part, at - offset);
        return part.length;
      });
    }
    return result;
  }

  /** Read all of a small file, whose size the server need not send. @param {number} maxNbytes */
  async readAll(maxNbytes) {
    if (this.nbytes > maxNbytes) throw this.#fault("large", "it is too large for its kind", 0);
    if (this.nbytes >= 0) return this.read(0, this.nbytes);
    const bytes = await this.#remote.readAll(maxNbytes, this.#abort.signal);
    this.#entry = this.#fresh({ .../** @type {Version} */ (this.#remote.version), nbytes: bytes.length });
    for (let index = 0; index < this.count; index++) {
      const part = bytes.slice(index * this.chunkNbytes, (index + 1) * this.chunkNbytes);
      await this.#store(index, part, await this.#shared.sha256(part));
    }
    return bytes;
  }

  /**
   * Read chunks in the order given; `use` is awaited with each before the next is fetched, and its bytes are
   * valid until then. With `sha256` the file's hash is checked too, for which every chunk is read. With `ahead`
   * the next chunks are read from the store meanwhile.
   * @param {number[]} order @param {string} sha256
   * @param {(index: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>} use @param {boolean} [ahead]
   */
  async stream(order, sha256, use, ahead = false) {
    const verify = sha256 !== "" && !this.#expected && this.#known.sha256 !== sha256;
    // Without a store no chunk could be read a second time for the hash.
    if (verify && !this.#shelf.isStored) order = [...order].sort((a, b) => a - b);
    const inOrder = order.length === this.count && order.every((index, at) => index === at);
    const hasher = verify ? await this.#shared.hasher() : null;
    this.#after = new Map(order.slice(1).map((next, at) => [order[at], next]));
    try {
      for (const [at, index] of order.entries()) {
        if (ahead) this.#readAhead(order.slice(at, at + 1 + MAX_AHEAD));
        await this.#use(index, async (bytes) => {
          if (inOrder) hasher?.update(bytes);
          await use(index, bytes);
        });
      }
      if (hasher) await this.#verify(hasher, inOrder, sha256);
    } finally {
      this.#endRun();
      await Promise.all([...this.#early.values()].map(({ reading }) => reading));
      this.#early.clear();
      this.#spare = [];
      this.#dropBuffer();
      this.#shelf.unlock();
    }
  }

  /** Read a chunk from the store alone; its bytes are valid until `use` has returned.
   * @template T @param {number} index @param {(bytes: Uint8Array<ArrayBuffer>) => T} use @returns {Promise<T>} */
  useStored(index, use) {
    const work = this.#turn.then(async () => {
      if (this.#held?.index === index) return use(this.#held.bytes);
      this.#held = null;
      if (!this.#buffer.length) this.#buffer = this.#newBuffer();
      const bytes = await this.#fromStore(index, this.#buffer);
      if (!bytes) throw this.#fault("evicted", "these bytes are no longer in the cache", index * this.chunkNbytes);
      return use(this.#hold(index, bytes));
    });
    this.#turn = work.catch(() => {});
    return work;
  }

  /** The model's header was read: others may be evicted for it, and chunks held back until then are stored. */
  async trust() {
    if (this.#entry) await this.#shelf.trust(this.#entry);
  }

  /** Fetch the missing chunks into the store, for a reader elsewhere. */
  async prefetch() {
    const missing = [...this.#known.hashes.keys()].filter((index) => !this.#known.hashes[index]);
    await this.stream(missing, "", async () => {
      // A chunk that cannot be stored is of no use to a reader elsewhere.
      if (!this.#shelf.isStored || this.#shelf.hasPending) throw this.#fault("cancelled", "nothing more is stored", 0);
    });
  }

  /** Stop, and release the locks for other tabs. Stored chunks stay. */
  close() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#endRun();
    this.#opened = null;
    this.#dropBuffer();
    this.#shelf.close();
    this.#remote.received = this.#remote.retries = 0;
  }

  /** Remove the file from the cache. */
  async forget() {
    this.#endRun();
    this.#opened = null;
    this.#dropBuffer();
    await this.#shelf.clear();
  }

  /** @returns {Entry} */
  get #known() {
    if (!this.#entry) throw new Error("the file is used before it is open");
    return this.#entry;
  }

  /** @param {Expected | null} expected */
  async #open(expected) {
    this.#expected = expected;
    const stored = await this.#shelf.open(this.#abort.signal);
    if (expected) {
      const same = stored && stored.nbytes === expected.nbytes && stored.chunkNbytes === expected.chunkNbytes;
      this.#entry = same ? stored : this.#fresh({ ...expected, etag: "", modified: "" });
    } else {
      this.#entry = await this.#revalidated(stored);
    }
    if (this.#known.missing) throw this.#fault("missing", "there is no such file", 0);
  }

  /** The stored entry, if the server still has that version or cannot be reached; else a new one.
   * @param {Entry | null} stored */
  async #revalidated(stored) {
    if (stored && this.#shared.wasChecked(this.url)) return this.#useEntry(stored);
    try {
      this.#remote.version = null;
      const version = await this.#remote.check(this.#abort.signal, stored ? REVALIDATE_MS : undefined);
      if (!stored || stored.missing || !this.#shared.http.agree(stored, version)) {
        if (stored) await this.#shelf.clear();
        return this.#fresh(version);
      }
    } catch (error) {
      const { kind } = /** @type {import("./http.js").Fault} */ (error);
      // So that a page without a network knows which optional files do not exist.
      const none = { ...this.#fresh({ nbytes: 0, etag: "", modified: "" }), missing: true };
      if (kind === "missing") await this.#shelf.save(none);
      if ((kind !== "source" && kind !== "cors") || !stored) throw error;
    }
    return this.#useEntry(stored);
  }

  /** @param {Entry} stored */
  #useEntry(stored) {
    const { nbytes, etag, modified } = stored;
    this.#remote.version = { nbytes, etag, modified };
    return stored;
  }

  /** @param {{ nbytes: number, etag: string, modified: string, chunkNbytes?: number }} version
   * @returns {Entry} */
  #fresh({ nbytes, etag, modified, chunkNbytes = this.#shared.chunkNbytes }) {
    const maxNbytes = MAX_CHUNKS * chunkNbytes;
    if (nbytes > maxNbytes) {
      throw this.#fault("large", `the server claims ${nbytes} bytes, more than the ${maxNbytes} that are read of a file`, 0);
    }
    const hashes = Array.from({ length: Math.max(0, Math.ceil(nbytes / chunkNbytes)) }, () => "");
    const { url } = this;
    return { v: 1, seq: 0, url, nbytes, etag, modified, chunkNbytes, hashes, sha256: "", missing: false };
  }

  /** Start reading these chunks from the store, up to the first that it lacks.
   * @param {number[]} indices */
  #readAhead(indices) {
    for (const index of indices) {
      // A worker that is fetching has a chunk in its memory, too.
      if (!this.#hash(index) || this.following) return;
      if (this.#early.has(index) || this.#held?.index === index) continue;
      const buffer = this.#spare.pop() ?? this.#newBuffer();
      const reading = this.#fromStore(index, buffer).catch(() => null);
      this.#early.set(index, { buffer, reading });
    }
  }

  #dropBuffer() {
    this.#buffer = new Uint8Array(0);
    this.#held = null;
  }

  #newBuffer() {
    return new Uint8Array(Math.min(this.chunkNbytes, this.nbytes));
  }

  /** Read a chunk and use it, one after another: readers share a buffer and a connection.
   * @template T @param {number} index
   * @param {(bytes: Uint8Array<ArrayBuffer>) => T | Promise<T>} use @returns {Promise<T>} */
  #use(index, use) {
    const work = this.#turn.then(async () => {
      const early = this.#early.get(index);
      const stored = await early?.reading;
      this.#early.delete(index);
      if (early) this.#dropBuffer();
      if (early && !stored) this.#buffer = early.buffer; // the network fills it
      const result = await use(stored ?? (await this.#chunk(index)));
      if (early) {
        this.#spare.push(early.buffer);
        this.#dropBuffer();
      }
      return result;
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
    if (this.#held?.index === index) return this.#held.bytes;
    this.#held = null;
    if (!this.#buffer.length) this.#buffer = this.#newBuffer();
    for (;;) {
      const bytes = await this.#fromStore(index, this.#buffer);
      if (bytes) return this.#hold(index, bytes);
      if (this.#shelf.locked) return this.#hold(index, await this.#fromNetwork(index));
      // Another tab may be fetching the same file: then its chunks are used as they are stored.
      await this.#shelf.turn(this.#abort.signal);
      const stored = await this.#shelf.load();
      if (stored && this.#shared.http.agree(stored, this.#known)) this.#entry = stored;
    }
  }

  /** @param {number} index @param {Uint8Array<ArrayBuffer>} bytes with the chunk's hash */
  #hold(index, bytes) {
    this.#held = { index, bytes };
    return bytes;
  }

  /** @param {number} index @param {Uint8Array<ArrayBuffer>} buffer */
  async #fromStore(index, buffer) {
    const hash = this.#hash(index);
    const bytes = await this.#shelf.get(hash, this.#length(index), buffer);
    if (bytes && !this.#known.hashes[index]) {
      this.#known.hashes[index] = hash; // another model has stored it
      await this.#shelf.save(this.#known);
    }
    return bytes;
  }

  /** @param {number} index */
  async #fromNetwork(index) {
    const expected = this.#hash(index);
    for (let tries = 0; ; tries++) {
      const bytes = await this.#pull(index);
      this.#checkPlace(index, bytes);
      const hash = await this.#shared.sha256(bytes);
      if (!expected || hash === expected) {
        await this.#store(index, bytes, hash);
        return bytes;
      }
      this.#endRun();
      if (tries === 0) continue;
      const origin = this.#expected ? "the manifest" : "the first load";
      const what = `its bytes from ${index * this.chunkNbytes} are not those of ${origin} (SHA-256)`;
      throw this.#fault(this.#expected ? "corrupt" : "changed", what, index * this.chunkNbytes);
    }
  }

  /** Reject the file's first bytes at another place: without a Content-Range, that is how a server that
   * ignores ranges is detected.
   * @param {number} index @param {Uint8Array<ArrayBuffer>} bytes */
  #checkPlace(index, bytes) {
    const begins = bytes.slice(0, BEGINNING_NBYTES);
    if (index === 0) this.#beginning = begins;
    if (index === 0 || !this.#remote.unnamed || !this.#beginning || begins.length < 16) return;
    const beginning = this.#beginning;
    if (!begins.every((byte, at) => byte === beginning[at])) return;
    this.#endRun();
    const what = "the server sends the file's beginning for another part, without its Content-Range";
    throw this.#fault("source", what, index * this.chunkNbytes);
  }

  /** Read the next chunk of the open response, or of a new one. @param {number} index */
  async #pull(index) {
    if (this.#run?.next !== index) this.#beginRun(index);
    const run = /** @type {Run} */ (this.#run);
    const buffer = this.#buffer.subarray(0, this.#length(index));
    let filled = 0;
    try {
      while (filled < buffer.length) {
        if (!run.rest.length) {
          const { value, done } = await run.parts.next();
          if (done) throw this.#fault("source", "the server ended early", index * this.chunkNbytes);
          run.rest = value;
        }
        const part = run.rest.subarray(0, buffer.length - filled);
        buffer.set(part, filled);
        filled += part.length;
        this.filling = filled;
        this.#shelf.beat();
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

  /** Start one request for all chunks up to one that is stored, or that is not requested next.
   * @param {number} index */
  #beginRun(index) {
    this.#endRun();
    let last = index;
    while (this.#after.get(last) === last + 1 && !this.#known.hashes[last + 1]) last += 1;
    const end = Math.min(this.nbytes, (last + 1) * this.chunkNbytes);
    const parts = this.#remote.read(index * this.chunkNbytes, end, this.#abort.signal);
    this.#run = { next: index, last, parts, rest: new Uint8Array(0) };
  }

  #endRun() {
    this.#run?.parts.return(undefined).catch(() => {});
    this.#run = null;
  }

  /** @param {number} index @param {Uint8Array<ArrayBuffer>} bytes @param {string} hash */
  async #store(index, bytes, hash) {
    this.#known.hashes[index] = hash;
    await this.#shelf.put(hash, bytes, this.#known);
  }

  /** @param {import("./fetcher.js").Hasher} hasher @param {boolean} hashed @param {string} sha256 */
  async #verify(hasher, hashed, sha256) {
    for (let index = 0; !hashed && index < this.count; index++) {
      await this.#use(index, (bytes) => void hasher.update(bytes));
    }
    const digest = hasher.digest("hex");
    if (digest !== sha256) {
      await this.forget();
      throw this.#fault("corrupt", `its SHA-256 is ${digest}, and ${sha256} was promised`, 0);
    }
    this.#known.sha256 = sha256;
    await this.#shelf.save(this.#known);
  }

  /** @param {number} index */
  #length(index) {
    return this.#shared.chunkLength(this.#known, index);
  }

  /** @param {string} kind @param {string} what @param {number} offset */
  #fault(kind, what, offset) {
    return new this.#shared.http.Fault(kind, what, offset);
  }
}
