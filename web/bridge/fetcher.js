// Model files for a page: from the cache where they are there, else from the network, by chunks, and
// straight into GPU buffers (or Python's memory where there is no GPU). It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").Gpu} Gpu
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {import("./pieces.js").Sink} Sink
 * @typedef {import("./download.js").CachedFile} CachedFile
 * @typedef {import("./manifest.js").Expected} Expected
 * @typedef {{ update(bytes: Uint8Array): unknown, digest(kind: "hex"): string }} Hasher
 * @typedef {{ store: string, chunkNbytes: number, mostNbytes: number,
 *   patience: import("./http.js").Patience }} Options
 * @typedef {{
 *   store: typeof import("./store.js"), http: typeof import("./http.js"),
 *   journal: typeof import("./journal.js"), manifest: typeof import("./manifest.js"),
 *   download: typeof import("./download.js"), shelf: typeof import("./shelf.js"),
 *   pieces: typeof import("./pieces.js"),
 *   idb: () => Promise<any>, hashes: () => Promise<any>,
 * }} Parts
 * @typedef {{
 *   http: typeof import("./http.js"), shelf: typeof import("./shelf.js"), journal: import("./journal.js").Journal | null,
 *   patience: import("./http.js").Patience, chunkNbytes: number, mostNbytes: number,
 *   sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string>, keyOf(url: string): Promise<string>,
 *   chunkLength: typeof import("./journal.js").chunkLength, hasher(): Promise<Hasher>,
 *   warn(text: string): void, wasChecked(url: string): boolean,
 * }} Shared
 * What a prefetch says of a file whose version it has asked the server for: its bytes, where it is small; or that
 * there is none.
 * @typedef {{ url: string, bytes?: Uint8Array<ArrayBuffer>, missing?: boolean }} Checked
 */

/** @type {Options} */
const DEFAULTS = {
  store: "auto",
  chunkNbytes: 4 << 20,
  mostNbytes: 64 * 2 ** 30,
  patience: {
    attempts: 6, firstDelayMs: 250, mostDelayMs: 8000, stallMs: 30_000, mostWaitMs: 60_000,
    silenceMs: 10_000,
  },
};
const MANIFEST = "bascule-manifest.json";
const MOST_MANIFEST_NBYTES = 16 << 20;
const REPORT_MS = 100;
const CHECKED_MS = 60_000;
/** Of a file that a prefetch passes on. */
const MOST_PASSED_NBYTES = 1 << 20;
const MOST_AT_ONCE = 6; // as many requests as browsers make of one server

/** Reads model folders. */
export class Fetcher {
  #parts;
  #shared;
  /** @type {Map<string, CachedFile>} */
  #files = new Map();
  /** @type {Map<string, Promise<Map<string, Expected> | null>>} */
  #manifests = new Map();
  /** Folders whose weights are asked for, since their header was read. @type {Set<string>} */
  #trusted = new Set();
  /** Folders of `takeAsKept`. @type {Set<string>} */
  #asKept = new Set();
  /** Files that a prefetch has passed on and that are not noted as in use yet. @type {[string, string][]} */
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
      wasChecked: (/** @type {string} */ url) => this.#isAsKept(url) || wasChecked(url),
      warn: (/** @type {string} */ text) => this.warn(text),
    };
  }

  /** Until the folder is closed, take its files as they are kept, without asking the server for their versions.
   * @param {string} folder */
  takeAsKept(folder) {
    this.#asKept.add(folder);
  }

  /** @param {string} url */
  #isAsKept(url) {
    return [...this.#asKept].some((folder) => url.startsWith(`${folder}/`));
  }

  /** Said once, here and on the console. @param {string} text */
  warn(text) {
    if (this.warnings.includes(text)) return;
    this.warnings.push(text);
    console.warn(`Bascule: ${text}`);
  }

  /** @param {string} folder @param {string} file */
  async size(folder, file) {
    const found = await this.#open(folder, file);
    if (found.nbytes < 0) {
      throw new this.#parts.http.Fault("source", "the server does not report the file's size", 0);
    }
    return found.nbytes;
  }

  /** Of all chunks of a file but the last. @param {string} folder @param {string} file */
  async chunkNbytes(folder, file) {
    return (await this.#open(folder, file)).chunkNbytes;
  }

  /** Part of a file. @param {string} folder @param {string} file @param {number} offset
   * @param {number} nbytes */
  async read(folder, file, offset, nbytes) {
    return (await this.#open(folder, file)).read(offset, nbytes);
  }

  /** All of a small file; its hash is compared where one is given. @param {string} folder
   * @param {string} file @param {number} most @param {string} sha256 */
  async readAll(folder, file, most, sha256) {
    const passed = await this.#passedOn(folder, file, most, sha256);
    if (passed) return passed;
    const found = await this.#open(folder, file);
    const bytes = await found.readAll(most);
    if (!sha256) return bytes;
    const hash = await this.#shared.sha256(/** @type {Uint8Array<ArrayBuffer>} */ (bytes));
    if (hash === sha256) return bytes;
    await found.forget();
    const what = `its SHA-256 is ${hash}, and ${sha256} was promised`;
    throw new this.#parts.http.Fault("corrupt", what, 0);
  }

  /**
   * Copy pieces of a file to their targets, in the order of the table.
   * @param {string} folder @param {string} file
   * @param {PyBuffer} table float64: file offset, nbytes, target, target offset, dtype a piece
   * @param {Gpu | null} gpu @param {Sink | null} sink @param {string} sha256 of the file, or ""
   * @param {(done: number, ready: number) => void} report pieces' bytes; how many first ones are whole
   */
  async stream(folder, file, table, gpu, sink, sha256, report) {
    const { decodePieces, Scatter, Window, chunkOrder, lacking, leading } = this.#parts.pieces;
    const pieces = decodePieces(table);
    const found = await this.#open(folder, file);
    this.#trusted.add(folder);
    for (const each of this.#filesOf(folder)) await each.trust();
    const { chunkNbytes } = found;
    const missing = lacking(pieces, found.nbytes);
    if (missing) throw new this.#parts.http.Fault("source", `it ends ${missing} bytes early`, found.nbytes);
    const window = gpu && new Window(gpu.queue);
    const scatter = new Scatter(pieces, (target, offset, bytes) => {
      if (gpu) gpu.writeBytes(target, offset, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
      else sink?.(target, offset, bytes);
    });
    const ready = leading(pieces);
    let reported = 0;
    const tick = setInterval(() => {
      // Between chunks the bytes on their way are shown; they never count as ready.
      if (found.filling) report(Math.max(reported, Math.min(scatter.done + found.filling, total)), 0);
    }, REPORT_MS);
    const total = pieces.reduce((sum, { nbytes }) => sum + nbytes, 0);
    const whole = sha256 ? found.count : 0;
    try {
      await found.stream(chunkOrder(pieces, chunkNbytes, whole), sha256, async (index, bytes) => {
        const before = scatter.done;
        scatter.feed(index * chunkNbytes, bytes);
        const used = scatter.done - before;
        // Three chunks are under way at most: one that is filled here and two that are queued for the
        // GPU, or one of these if another worker fills one too; without a GPU two that are read ahead.
        const { following, buffered } = found;
        const queued = (await window?.add(used, following ? 0 : chunkNbytes)) ?? 0;
        this.#note((buffered + Number(following)) * chunkNbytes + queued);
        reported = scatter.done;
        report(reported, ready(index * chunkNbytes, bytes.length));
      }, !gpu);
    } finally {
      clearInterval(tick);
      // So that nothing evicts them; it can wait until the weights are there.
      for (const [place, name] of this.#passed.splice(0)) this.#open(place, name).catch(() => {});
    }
  }

  /** Copy pieces again that `stream` has read, from the store alone; as there, but for the report.
   * @param {string} folder @param {string} file @param {PyBuffer} table @param {Gpu | null} gpu
   * @param {Sink | null} sink */
  async reread(folder, file, table, gpu, sink) {
    const { decodePieces, Scatter, chunkOrder } = this.#parts.pieces;
    const pieces = decodePieces(table);
    const found = this.#files.get(`${folder}/${file}`);
    if (!found?.isOpen) throw new this.#parts.http.Fault("evicted", "it is not open any more", 0);
    const scatter = new Scatter(pieces, (target, offset, bytes) => {
      if (gpu) gpu.writeBytes(target, offset, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
      else sink?.(target, offset, bytes);
    });
    const { chunkNbytes } = found;
    for (const index of chunkOrder(pieces, chunkNbytes, 0)) {
      await found.useKept(index, (bytes) => scatter.feed(index * chunkNbytes, bytes));
    }
  }

  /** What a prefetch has just read of a small file, without a look at the store.
   * @param {string} folder @param {string} file @param {number} most @param {string} sha256 */
  async #passedOn(folder, file, most, sha256) {
    const { bytes, missing } = takePassed(`${folder}/${file}`);
    if (missing) throw new this.#parts.http.Fault("missing", "there is no such file", 0);
    if (!bytes || bytes.length > most) return null;
    if (sha256 && (await this.#shared.sha256(bytes)) !== sha256) return null;
    this.#passed.push([folder, file]);
    return bytes;
  }

  /** Bring what is missing of files into the store, for a reader elsewhere: all small ones and, one after
   * another, the large ones. Errors go to whoever asks for the file.
   * @param {string} folder @param {{ small: string[], large: string[] }} files
   * @param {number} most bytes of a small file @param {(checked: Checked) => void} tell is called with each file
   * whose version the server was asked for, and then of the bytes of a small one */
  async prefetch(folder, { small, large }, most, tell) {
    if (!this.#shared.journal) return;
    const quiet = () => {};
    const open = async (/** @type {string} */ file) => {
      const url = `${folder}/${file}`;
      try {
        const found = await this.#open(folder, file);
        tell({ url });
        return found;
      } catch (error) {
        // Kept as missing.
        tell({ url, missing: /** @type {import("./http.js").Fault} */ (error).kind === "missing" });
        return null;
      }
    };
    const manifest = await this.#manifest(folder).catch(quiet);
    tell({ url: `${folder}/${MANIFEST}`, missing: manifest === null });
    const smallOnes = small.map(async (file) => {
      const found = await open(file);
      if (!found || found.nbytes > most) return;
      if (found.nbytes > MOST_PASSED_NBYTES) return found.prefetch();
      const bytes = await found.readAll(most);
      if (bytes.length <= MOST_PASSED_NBYTES) tell({ url: `${folder}/${file}`, bytes });
    });
    const reading = smallOnes.map((each) => each.catch(quiet));
    for (let at = 0; at < large.length; at += MOST_AT_ONCE) {
      // Asked for together: where all is there already, that is all there is to do.
      const opened = await Promise.all(large.slice(at, at + MOST_AT_ONCE).map(open));
      for (const found of opened) if (found && found.nbytes > 0) await found.prefetch().catch(quiet);
    }
    await Promise.all(reading);
  }

  /** The files that a folder's manifest names, else those that have come from it before.
   * @param {string} folder @returns {Promise<string[]>} */
  async listed(folder) {
    const manifest = await this.#manifest(folder).catch(() => null);
    if (manifest?.size) return [...manifest.keys()];
    const entries = (await this.#shared.journal?.entries()) ?? [];
    const urls = entries.filter(({ missing }) => !missing).map(({ url }) => url);
    return urls.filter((url) => url.startsWith(`${folder}/`)).map((url) => url.slice(folder.length + 1));
  }

  /** Bytes there and in all of a file that is being fetched. @param {string} folder
   * @param {string} file */
  progress(folder, file) {
    const found = this.#files.get(`${folder}/${file}`);
    return found?.isOpen ? [found.kept, found.nbytes] : [0, 0];
  }

  /** Stop what runs for a folder, and let other tabs go on. @param {string} folder */
  close(folder) {
    for (const file of this.#filesOf(folder)) file.close();
    this.#manifests.delete(folder);
    this.#trusted.delete(folder);
    this.#asKept.delete(folder);
  }

  /** Forget what is kept of a file. @param {string} folder @param {string} file */
  async forget(folder, file) {
    if (!this.#files.has(`${folder}/${file}`)) await this.#open(folder, file).catch(() => {});
    await this.#files.get(`${folder}/${file}`)?.forget();
  }

  /** Counts of a folder since it was closed last, as JSON. @param {string} folder */
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

  /** Files that the page itself writes; null where nothing is kept. */
  get ownFiles() {
    const { journal } = this.#shared;
    if (journal) this.#ownFiles ??= new this.#parts.journal.OwnFiles(journal, this.#shared.mostNbytes);
    return this.#ownFiles;
  }

  /** What is kept, as JSON. */
  async entries() {
    const found = (await this.#shared.journal?.entries()) ?? [];
    return JSON.stringify(
      found
        .filter(({ missing }) => !missing)
        .map(({ url, nbytes, storedNbytes, used, inUse, sha256 }) => {
          const kind = this.#parts.journal.kindOf(url);
          return { location: url, kind, nbytes, stored_nbytes: storedNbytes, used, in_use: inUse, sha256 };
        }),
    );
  }

  /** Bytes of all chunks that belong to no file. */
  async orphanedNbytes() {
    const { journal } = this.#shared;
    let nbytes = 0;
    // One at a time in memory; a store lists no sizes, and orphans are few.
    for (const name of (await journal?.orphans()) ?? []) nbytes += (await journal?.store.get(name))?.length ?? 0;
    return nbytes;
  }

  /** Remove the chunks that belong to no file; how many. */
  async removeOrphans() {
    return (await this.#shared.journal?.dropOrphans()) ?? 0;
  }

  /** Forget every file whose URL is, or is below, one of these (a scheme alone is above none); all,
   * and what dead tabs have left, without any. Says how many.
   * @param {string} urls JSON */
  async remove(urls) {
    const wanted = JSON.parse(urls);
    const above = (/** @type {string} */ url) => (/** @type {string} */ location) => {
      const place = location.replace(/\/+$/, "");
      return url === location || (/^https?:\/\/[^/]/.test(place) && `${url}/`.startsWith(`${place}/`));
    };
    const below = (/** @type {string} */ url) => !wanted.length || wanted.some(above(url));
    const gone = ((await this.#shared.journal?.entries()) ?? []).filter(({ url }) => below(url));
    for (const { url } of gone) this.#files.get(url)?.close();
    await this.#shared.journal?.remove(gone.map(({ key }) => key));
    if (!wanted.length) await this.#shared.journal?.dropOrphans();
    return gone.filter(({ missing }) => !missing).length;
  }

  /** Read and hash every chunk that is kept; damaged ones are dropped. JSON: damaged chunks by URL. */
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

  /** A manifest lists all files of its folder: the server is asked for no other.
   * @param {string} folder @param {string} file */
  async #open(folder, file) {
    const url = `${folder}/${file}`;
    const manifest = file === MANIFEST ? null : await this.#manifest(folder);
    if (manifest?.size && !manifest.has(file)) {
      throw new this.#parts.http.Fault("unlisted", "the folder's manifest does not list it", 0);
    }
    let found = this.#files.get(url);
    if (!found) {
      found = new this.#parts.download.CachedFile(url, this.#shared);
      this.#files.set(url, found);
    }
    await found.open(manifest?.get(file) ?? null);
    if (this.#trusted.has(folder)) await found.trust();
    return found;
  }

  /** @param {string} folder */
  #filesOf(folder) {
    return [...this.#files].flatMap(([url, file]) => (url.startsWith(`${folder}/`) ? [file] : []));
  }

  /** @param {string} folder */
  #manifest(folder) {
    let found = this.#manifests.get(folder);
    if (!found) {
      found = this.#readManifest(folder);
      found.catch(() => this.#manifests.delete(folder));
      this.#manifests.set(folder, found);
    }
    return found;
  }

  /** @param {string} folder */
  async #readManifest(folder) {
    try {
      return this.#parts.manifest.parseManifest(await this.readAll(folder, MANIFEST, MOST_MANIFEST_NBYTES, ""));
    } catch (error) {
      const { kind, message } = /** @type {import("./http.js").Fault} */ (error);
      if (kind === "missing") return null;
      if (kind) throw error;
      await this.forget(folder, MANIFEST);
      throw new this.#parts.http.Fault("corrupt", `its manifest is not sound: ${message}`, 0);
    }
  }

  /** @param {number} nbytes */
  #note(nbytes) {
    this.peakChunkNbytes = Math.max(this.peakChunkNbytes, nbytes);
  }
}

/** Whether a prefetch for this page has just asked the server for the file's version; true once.
 * @param {string} url */
function wasChecked(url) {
  const { at = -Infinity } = allChecked().get(url) ?? {};
  allChecked().delete(url);
  return performance.now() - at < CHECKED_MS;
}

/** What a prefetch has passed on of a file, once; that the file's version was asked for stays true.
 * @param {string} url @returns {Partial<Checked>} */
function takePassed(url) {
  const found = allChecked().get(url);
  if (!found || performance.now() - found.at >= CHECKED_MS) return {};
  const { at, bytes, missing } = found;
  if (bytes || missing) allChecked().set(url, { url, at });
  return { bytes, missing };
}

/** Filled by ../worker.js. @returns {Map<string, Checked & { at: number }>} */
function allChecked() {
  return /** @type {any} */ (globalThis).basculeChecked ?? new Map();
}

/**
 * @param {Parts} parts @param {string} optionsJson what differs from the defaults
 * @returns {Promise<Fetcher>}
 */
export async function createFetcher(parts, optionsJson) {
  const asked = JSON.parse(optionsJson);
  const patience = { ...DEFAULTS.patience, ...asked.patience };
  const options = { ...DEFAULTS, ...asked, patience };
  const { store, refused } = await parts.store.openStore(options.store, parts.idb);
  const fetcher = new Fetcher(parts, options, store);
  if (!store && options.store !== "none") {
    fetcher.warn(`Nothing is kept for the next visit (${refused.join("; ") || "no such store"}).`);
  }
  return fetcher;
}
