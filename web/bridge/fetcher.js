// Model files for a page: by chunks from the cache or the network straight into GPU buffers, or into
// Python's memory without a GPU. It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").Gpu} Gpu
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {import("./pieces.js").Sink} Sink
 * @typedef {import("./download.js").CachedFile} CachedFile
 * @typedef {import("./manifest.js").Expected} Expected
 * @typedef {{ update(bytes: Uint8Array): unknown, digest(kind: "hex"): string }} Hasher
 * @typedef {{ store: string, chunkNbytes: number, maxNbytes: number,
 *   retry: import("./http.js").RetryPolicy }} Options
 * @typedef {{
 *   store: typeof import("./store.js"), http: typeof import("./http.js"),
 *   journal: typeof import("./journal.js"), manifest: typeof import("./manifest.js"),
 *   download: typeof import("./download.js"), shelf: typeof import("./shelf.js"),
 *   pieces: typeof import("./pieces.js"),
 *   idb: () => Promise<any>, hashes: () => Promise<any>,
 * }} Parts
 * @typedef {{
 *   http: typeof import("./http.js"), shelf: typeof import("./shelf.js"), journal: import("./journal.js").Journal | null,
 *   retry: import("./http.js").RetryPolicy, chunkNbytes: number, maxNbytes: number,
 *   sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string>, keyOf(url: string): Promise<string>,
 *   chunkLength: typeof import("./journal.js").chunkLength, hasher(): Promise<Hasher>,
 *   warn(text: string): void, wasChecked(url: string): boolean,
 * }} Shared
 * A prefetch's result for a file whose version it has requested: the bytes of a small file, or that it is missing.
 * @typedef {{ url: string, bytes?: Uint8Array<ArrayBuffer>, missing?: boolean }} Checked
 */

/** @type {Options} */
const DEFAULTS = {
  store: "auto",
  chunkNbytes: 4 << 20,
  maxNbytes: 64 * 2 ** 30,
  retry: {
    attempts: 6, firstDelayMs: 250, maxDelayMs: 8000, stallMs: 30_000, maxWaitMs: 60_000,
    silenceMs: 10_000,
  },
};
const MANIFEST = "bascule-manifest.json";
const MAX_MANIFEST_NBYTES = 16 << 20;
const REPORT_MS = 100;
const CHECKED_MS = 60_000;
/** The largest file that a prefetch passes on. */
const MAX_PASSED_NBYTES = 1 << 20;
const MAX_AT_ONCE = 6; // as many connections as browsers open to one server

/** Reads model folders. */
export class Fetcher {
  #parts;
  #shared;
  /** @type {Map<string, CachedFile>} */
  #files = new Map();
  /** @type {Map<string, Promise<Map<string, Expected> | null>>} */
  #manifests = new Map();
  /** Folders whose weights are being loaded: their header was read. @type {Set<string>} */
  #trusted = new Set();
  /** Folders of `skipChecks`. @type {Set<string>} */
  #unchecked = new Set();
  /** Files that a prefetch has passed on and that are not marked as in use yet. @type {[string, string][]} */
  #passed = [];
  /** @type {import("./journal.js").OwnFiles | null} */
  #ownFiles = null;
  /** @type {string[]} */
  warnings = [];
  peakChunkNbytes = 0;

  /** @param {Parts} parts @param {Options} options @param {import("./store.js").Store | null} store */
  constructor(parts, options, store) {
    this.#parts = parts;
    this.storeKind = store?.kind ?? "none";
    const subtle = Boolean(globalThis.crypto?.subtle);
    /** @type {Shared} */
    this.#shared = {
      ...options,
      http: parts.http,
      shelf: parts.shelf,
      journal: store && subtle ? new parts.journal.Journal(store) : null,
      sha256: subtle ? parts.journal.sha256 : async (/** @type {Uint8Array} */ bytes) => (await parts.hashes()).sha256(bytes),
      keyOf: subtle ? parts.journal.keyOf : async (/** @type {string} */ url) => url,
      chunkLength: parts.journal.chunkLength,
      hasher: async () => (await (await parts.hashes()).createSHA256()).init(),
      wasChecked: (/** @type {string} */ url) => this.#isUnchecked(url) || wasChecked(url),
      warn: (/** @type {string} */ text) => this.warn(text),
    };
  }

  /** Until the folder is closed, use its cached files without asking the server for their versions.
   * @param {string} folder */
  skipChecks(folder) {
    this.#unchecked.add(folder);
  }

  /** @param {string} url */
  #isUnchecked(url) {
    return [...this.#unchecked].some((folder) => url.startsWith(`${folder}/`));
  }

  /** Warn once, here and on the console. @param {string} text */
  warn(text) {
    if (this.warnings.includes(text)) return;
    this.warnings.push(text);
    console.warn(`Bascule: ${text}`);
  }

  /** @param {string} folder @param {string} file */
  async size(folder, file) {
    const { nbytes } = await this.#open(folder, file);
    if (nbytes < 0) {
      throw new this.#parts.http.Fault("source", "the server does not report the file's size", 0);
    }
    return nbytes;
  }

  /** The size of all chunks of a file but the last. @param {string} folder @param {string} file */
  async chunkNbytes(folder, file) {
    return (await this.#open(folder, file)).chunkNbytes;
  }

  /** Part of a file. @param {string} folder @param {string} file @param {number} offset
   * @param {number} nbytes */
  async read(folder, file, offset, nbytes) {
    return (await this.#open(folder, file)).read(offset, nbytes);
  }

  /** Read a small file; its hash is compared with `sha256` if that is not empty. @param {string} folder
   * @param {string} file @param {number} maxNbytes @param {string} sha256 */
  async readAll(folder, file, maxNbytes, sha256) {
    const passed = await this.#takePassed(folder, file, maxNbytes, sha256);
    if (passed) return passed;
    const cached = await this.#open(folder, file);
    const bytes = await cached.readAll(maxNbytes);
    if (!sha256) return bytes;
    const hash = await this.#shared.sha256(/** @type {Uint8Array<ArrayBuffer>} */ (bytes));
    if (hash === sha256) return bytes;
    await cached.forget();
    const what = `its SHA-256 is ${hash}, and ${sha256} was promised`;
    throw new this.#parts.http.Fault("corrupt", what, 0);
  }

  /**
   * Copy pieces of a file to their targets, in the table's order.
   * @param {string} folder @param {string} file
   * @param {PyBuffer} table float64: file offset, nbytes, target, target offset, dtype a piece
   * @param {Gpu | null} gpu @param {Sink | null} sink @param {string} sha256 of the file, or ""
   * @param {(done: number, ready: number) => void} report bytes copied; how many of the first pieces are complete
   */
  async stream(folder, file, table, gpu, sink, sha256, report) {
    const { decodePieces, Scatter, Window, chunkOrder, lacking, leading } = this.#parts.pieces;
    const pieces = decodePieces(table);
    const cached = await this.#open(folder, file);
    this.#trusted.add(folder);
    for (const each of this.#filesOf(folder)) await each.trust();
    const { chunkNbytes } = cached;
    const missing = lacking(pieces, cached.nbytes);
    if (missing) throw new this.#parts.http.Fault("source", `it ends ${missing} bytes early`, cached.nbytes);
    const window = gpu && new Window(gpu.queue);
    const scatter = new Scatter(pieces, (target, offset, bytes) => {
      if (gpu) gpu.writeBytes(target, offset, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
      else sink?.(target, offset, bytes);
    });
    const ready = leading(pieces);
    let reported = 0;
    const tick = setInterval(() => {
      // Bytes of an incomplete chunk are reported; they never count as ready.
      if (cached.filling) report(Math.max(reported, Math.min(scatter.done + cached.filling, total)), 0);
    }, REPORT_MS);
    const total = pieces.reduce((sum, { nbytes }) => sum + nbytes, 0);
    const nHashed = sha256 ? cached.count : 0;
    try {
      await cached.stream(chunkOrder(pieces, chunkNbytes, nHashed), sha256, async (index, bytes) => {
        const before = scatter.done;
        scatter.feed(index * chunkNbytes, bytes);
        const used = scatter.done - before;
        // At most three chunks are in memory: one being filled and two queued for the GPU, or one queued
        // if another worker is filling one too; without a GPU two are read ahead.
        const { following, buffered } = cached;
        const queued = (await window?.add(used, following ? 0 : chunkNbytes)) ?? 0;
        this.#notePeak((buffered + Number(following)) * chunkNbytes + queued);
        reported = scatter.done;
        report(reported, ready(index * chunkNbytes, bytes.length));
      }, !gpu);
    } finally {
      clearInterval(tick);
      // Mark them as in use, so that nothing evicts them; not needed before the weights are there.
      for (const [parent, name] of this.#passed.splice(0)) this.#open(parent, name).catch(() => {});
    }
  }

  /** Copy pieces again that `stream` has read, from the store alone. Parameters as there.
   * @param {string} folder @param {string} file @param {PyBuffer} table @param {Gpu | null} gpu
   * @param {Sink | null} sink */
  async reread(folder, file, table, gpu, sink) {
    const { decodePieces, Scatter, chunkOrder } = this.#parts.pieces;
    const pieces = decodePieces(table);
    const cached = this.#files.get(`${folder}/${file}`);
    if (!cached?.isOpen) throw new this.#parts.http.Fault("evicted", "it is not open any more", 0);
    const scatter = new Scatter(pieces, (target, offset, bytes) => {
      if (gpu) gpu.writeBytes(target, offset, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
      else sink?.(target, offset, bytes);
    });
    const { chunkNbytes } = cached;
    for (const index of chunkOrder(pieces, chunkNbytes, 0)) {
      await cached.useStored(index, (bytes) => scatter.feed(index * chunkNbytes, bytes));
    }
  }

  /** The bytes of a small file that a prefetch has just read, without reading the store; null if there are none.
   * @param {string} folder @param {string} file @param {number} maxNbytes @param {string} sha256 */
  async #takePassed(folder, file, maxNbytes, sha256) {
    const { bytes, missing } = takePassed(`${folder}/${file}`);
    if (missing) throw new this.#parts.http.Fault("missing", "there is no such file", 0);
    if (!bytes || bytes.length > maxNbytes) return null;
    if (sha256 && (await this.#shared.sha256(bytes)) !== sha256) return null;
    this.#passed.push([folder, file]);
    return bytes;
  }

  /** Fetch the missing chunks of files into the store, for a reader elsewhere: all small files and, one
   * after another, the large ones. Whoever opens a file gets its error.
   * @param {string} folder @param {{ small: string[], large: string[] }} files
   * @param {number} maxNbytes bytes of a small file @param {(checked: Checked) => void} report called with each file
   * whose version was requested, and again with the bytes of a small one */
  async prefetch(folder, { small, large }, maxNbytes, report) {
    if (!this.#shared.journal) return;
    const quiet = () => {};
    const open = async (/** @type {string} */ file) => {
      const url = `${folder}/${file}`;
      try {
        const cached = await this.#open(folder, file);
        report({ url });
        return cached;
      } catch (error) {
        // The journal has it as missing.
        report({ url, missing: /** @type {import("./http.js").Fault} */ (error).kind === "missing" });
        return null;
      }
    };
    const manifest = await this.#manifest(folder).catch(quiet);
    report({ url: `${folder}/${MANIFEST}`, missing: manifest === null });
    const smallOnes = small.map(async (file) => {
      const cached = await open(file);
      if (!cached || cached.nbytes > maxNbytes) return;
      if (cached.nbytes > MAX_PASSED_NBYTES) return cached.prefetch();
      const bytes = await cached.readAll(maxNbytes);
      if (bytes.length <= MAX_PASSED_NBYTES) report({ url: `${folder}/${file}`, bytes });
    });
    const reading = smallOnes.map((each) => each.catch(quiet));
    for (let at = 0; at < large.length; at += MAX_AT_ONCE) {
      // Opened together: if all chunks are in the store, nothing else has to be done.
      const opened = await Promise.all(large.slice(at, at + MAX_AT_ONCE).map(open));
      for (const cached of opened) if (cached && cached.nbytes > 0) await cached.prefetch().catch(quiet);
    }
    await Promise.all(reading);
  }

  /** The files that a folder's manifest lists, else those of it that are cached.
   * @param {string} folder @returns {Promise<string[]>} */
  async listed(folder) {
    const manifest = await this.#manifest(folder).catch(() => null);
    if (manifest?.size) return [...manifest.keys()];
    const entries = (await this.#shared.journal?.entries()) ?? [];
    const urls = entries.filter(({ missing }) => !missing).map(({ url }) => url);
    return urls.filter((url) => url.startsWith(`${folder}/`)).map((url) => url.slice(folder.length + 1));
  }

  /** Bytes stored and in total of a file that is being fetched. @param {string} folder
   * @param {string} file */
  progress(folder, file) {
    const cached = this.#files.get(`${folder}/${file}`);
    return cached?.isOpen ? [cached.storedNbytes, cached.nbytes] : [0, 0];
  }

  /** Stop the loads of a folder, and release its locks for other tabs. @param {string} folder */
  close(folder) {
    for (const file of this.#filesOf(folder)) file.close();
    this.#manifests.delete(folder);
    this.#trusted.delete(folder);
    this.#unchecked.delete(folder);
  }

  /** Remove a file from the cache. @param {string} folder @param {string} file */
  async forget(folder, file) {
    if (!this.#files.has(`${folder}/${file}`)) await this.#open(folder, file).catch(() => {});
    await this.#files.get(`${folder}/${file}`)?.forget();
  }

  /** Counts of a folder since it was last closed, as JSON. @param {string} folder */
  stats(folder) {
    const files = this.#filesOf(folder);
    const sum = (/** @type {keyof CachedFile["counts"]} */ of) => files.reduce((n, f) => n + f.counts[of], 0);
    return JSON.stringify({
      network_nbytes: sum("network"),
      cached_nbytes: sum("cached"),
      network_retries: sum("retries"),
      peak_chunk_nbytes: this.peakChunkNbytes,
    });
  }

  /** Files that the page itself writes; null without a store. */
  get ownFiles() {
    const { journal } = this.#shared;
    if (journal) this.#ownFiles ??= new this.#parts.journal.OwnFiles(journal, this.#shared.maxNbytes);
    return this.#ownFiles;
  }

  /** The cached files, as JSON. */
  async entries() {
    const entries = (await this.#shared.journal?.entries()) ?? [];
    return JSON.stringify(
      entries
        .filter(({ missing }) => !missing)
        .map(({ url, nbytes, storedNbytes, used, inUse, sha256 }) => {
          const kind = this.#parts.journal.kindOf(url);
          return { location: url, kind, nbytes, stored_nbytes: storedNbytes, used, in_use: inUse, sha256 };
        }),
    );
  }

  /** Total bytes of the chunks that belong to no file. */
  async orphanedNbytes() {
    const { journal } = this.#shared;
    let nbytes = 0;
    // One at a time in memory; a store lists no sizes, and orphans are few.
    for (const name of (await journal?.orphans()) ?? []) nbytes += (await journal?.store.get(name))?.length ?? 0;
    return nbytes;
  }

  /** Remove the chunks that belong to no file, and return how many. */
  async removeOrphans() {
    return (await this.#shared.journal?.dropOrphans()) ?? 0;
  }

  /** Remove the files whose URL is, or is below, one of these (a scheme alone is above none), and return
   * how many. Without URLs remove all files, and what closed tabs left behind.
   * @param {string} urls JSON */
  async remove(urls) {
    const wanted = JSON.parse(urls);
    const above = (/** @type {string} */ url) => (/** @type {string} */ location) => {
      const base = location.replace(/\/+$/, "");
      return url === location || (/^https?:\/\/[^/]/.test(base) && `${url}/`.startsWith(`${base}/`));
    };
    const below = (/** @type {string} */ url) => !wanted.length || wanted.some(above(url));
    const removed = ((await this.#shared.journal?.entries()) ?? []).filter(({ url }) => below(url));
    for (const { url } of removed) this.#files.get(url)?.close();
    await this.#shared.journal?.remove(removed.map(({ key }) => key));
    if (!wanted.length) await this.#shared.journal?.dropOrphans();
    return removed.filter(({ missing }) => !missing).length;
  }

  /** Read and hash every cached chunk and remove the damaged ones; their number by URL, as JSON. */
  async verify() {
    const { journal, sha256 } = this.#shared;
    /** @type {Record<string, number>} */
    const damaged = {};
    for (const entry of (await journal?.entries()) ?? []) {
      for (const hash of new Set(entry.hashes.filter(Boolean))) {
        const bytes = await journal?.store.get(`c-${hash}`);
        if (bytes && (await sha256(bytes)) === hash) continue;
        await journal?.store.remove(`c-${hash}`);
        damaged[entry.url] = (damaged[entry.url] ?? 0) + 1;
      }
    }
    await journal?.dropOrphans();
    return JSON.stringify(damaged);
  }

  /** Open a file. A manifest lists all files of its folder: no other is requested from the server.
   * @param {string} folder @param {string} file */
  async #open(folder, file) {
    const url = `${folder}/${file}`;
    const manifest = file === MANIFEST ? null : await this.#manifest(folder);
    if (manifest?.size && !manifest.has(file)) {
      throw new this.#parts.http.Fault("unlisted", "the folder's manifest does not list it", 0);
    }
    let cached = this.#files.get(url);
    if (!cached) {
      cached = new this.#parts.download.CachedFile(url, this.#shared);
      this.#files.set(url, cached);
    }
    await cached.open(manifest?.get(file) ?? null);
    if (this.#trusted.has(folder)) await cached.trust();
    return cached;
  }

  /** @param {string} folder */
  #filesOf(folder) {
    return [...this.#files].flatMap(([url, file]) => (url.startsWith(`${folder}/`) ? [file] : []));
  }

  /** @param {string} folder */
  #manifest(folder) {
    let reading = this.#manifests.get(folder);
    if (!reading) {
      reading = this.#readManifest(folder);
      reading.catch(() => this.#manifests.delete(folder));
      this.#manifests.set(folder, reading);
    }
    return reading;
  }

  /** @param {string} folder */
  async #readManifest(folder) {
    try {
      return this.#parts.manifest.parseManifest(await this.readAll(folder, MANIFEST, MAX_MANIFEST_NBYTES, ""));
    } catch (error) {
      const { kind, message } = /** @type {import("./http.js").Fault} */ (error);
      if (kind === "missing") return null;
      if (kind) throw error;
      await this.forget(folder, MANIFEST);
      throw new this.#parts.http.Fault("corrupt", `its manifest is invalid: ${message}`, 0);
    }
  }

  /** @param {number} nbytes */
  #notePeak(nbytes) {
    this.peakChunkNbytes = Math.max(this.peakChunkNbytes, nbytes);
  }
}

/** Whether a prefetch for this page has just requested the file's version; true once.
 * @param {string} url */
function wasChecked(url) {
  const { at = -Infinity } = allChecked().get(url) ?? {};
  allChecked().delete(url);
  return performance.now() - at < CHECKED_MS;
}

/** Take what a prefetch has passed on of a file, once. The file's version still counts as requested.
 * @param {string} url @returns {Partial<Checked>} */
function takePassed(url) {
  const checked = allChecked().get(url);
  if (!checked || performance.now() - checked.at >= CHECKED_MS) return {};
  const { at, bytes, missing } = checked;
  if (bytes || missing) allChecked().set(url, { url, at });
  return { bytes, missing };
}

/** Filled by ../worker.js. @returns {Map<string, Checked & { at: number }>} */
function allChecked() {
  return /** @type {any} */ (globalThis).basculeChecked ?? new Map();
}

/**
 * @param {Parts} parts @param {string} optionsJson options that differ from the defaults
 * @returns {Promise<Fetcher>}
 */
export async function createFetcher(parts, optionsJson) {
  const overrides = JSON.parse(optionsJson);
  const retry = { ...DEFAULTS.retry, ...overrides.retry };
  const options = { ...DEFAULTS, ...overrides, retry };
  const { store, problems } = await parts.store.openStore(options.store, parts.idb);
  const fetcher = new Fetcher(parts, options, store);
  if (!store && options.store !== "none") {
    fetcher.warn(`Nothing is cached for the next visit (${problems.join("; ") || "no such store"}).`);
  }
  return fetcher;
}
