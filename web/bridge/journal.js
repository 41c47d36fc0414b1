// The journal of fetched files: of each its version, and the SHA-256 of its cached chunks. Chunks are named
// by their hash, so that equal ones are stored once and a half-written one is never mistaken for a complete
// one. It imports nothing (see gpu.js).

/**
 * @typedef {import("./store.js").Store} Store
 * @typedef {{
 *   v: 1, seq: number, url: string, nbytes: number, etag: string, modified: string,
 *   chunkNbytes: number, hashes: string[], sha256: string, missing: boolean,
 * }} Entry `hashes` holds "" for a chunk that has not arrived; `sha256` is the file's, once computed
 * @typedef {Entry & { key: string, used: number, storedNbytes: number, inUse: boolean }} Listed
 */

/** The prefix of the URLs of Python's snapshots that this browser has made (../snapshots.js). */
export const SNAPSHOT = "bascule-snapshot:";
/** The prefix of the URLs of stored indexes; see py/bascule/search/stores.py. */
export const INDEX = "bascule-index:";
const HASH = /^[0-9a-f]{64}$/;
const MAX_NBYTES = 2 ** 50;

/** @param {Uint8Array<ArrayBuffer>} bytes */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} url */
export async function keyOf(url) {
  return (await sha256(new TextEncoder().encode(url))).slice(0, 32);
}

/** Whether an entry is a snapshot of Python, which the browser can make again. @param {string} url */
export function isSnapshot(url) {
  return url.startsWith(SNAPSHOT);
}

/** The kind of an entry, as `bascule.cache` names it. @param {string} url */
export function kindOf(url) {
  if (isSnapshot(url)) return "snapshot";
  return url.startsWith(INDEX) ? "index" : "fetched";
}

/** Bytes of chunk `index` of a file. @param {{ nbytes: number, chunkNbytes: number }} entry
 * @param {number} index */
export function chunkLength({ nbytes, chunkNbytes }, index) {
  return Math.min(chunkNbytes, nbytes - index * chunkNbytes);
}

/** The entries of one store. */
export class Journal {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
  }

  /** A file's entry: the newer of two copies, since a tab may be closed while it writes one.
   * @param {string} key @returns {Promise<Entry | null>} */
  async load(key) {
    const copies = await Promise.all([0, 1].map((slot) => this.#read(`f-${key}-${slot}`)));
    const valid = copies.filter((entry) => isEntry(entry));
    return valid.sort((a, b) => b.seq - a.seq)[0] ?? null;
  }

  /** @param {string} key @param {Entry} entry */
  async save(key, entry) {
    entry.seq += 1;
    const bytes = new TextEncoder().encode(JSON.stringify(entry));
    await this.store.put(`f-${key}-${entry.seq % 2}`, bytes);
  }

  /** Note the time of use of a file, for eviction. @param {string} key */
  async touch(key) {
    await this.store.put(`u-${key}`, new TextEncoder().encode(String(Date.now())));
  }

  /** @returns {Promise<Listed[]>} */
  async entries() {
    const names = await this.store.names();
    const keys = new Set(names.flatMap((name) => /^f-([0-9a-f]{32})-[01]$/.exec(name)?.[1] ?? []));
    const stored = new Set(names.filter((name) => name.startsWith("c-")));
    const inUse = await heldLocks();
    const listed = [];
    for (const key of keys) {
      const entry = await this.load(key);
      if (!entry) continue;
      const storedNbytes = entry.hashes.reduce(
        (sum, hash, index) => sum + (hash && stored.has(`c-${hash}`) ? chunkLength(entry, index) : 0),
        0,
      );
      const used = Number((await this.#read(`u-${key}`)) ?? 0);
      listed.push({ ...entry, key, used, storedNbytes, inUse: inUse.has(`bascule:use:${key}`) });
    }
    return listed.sort((a, b) => a.used - b.used);
  }

  /** Remove files, and the chunks that no other file has. @param {string[]} keys */
  async remove(keys) {
    const removed = new Set(keys);
    const entries = await this.entries();
    const needed = new Set(entries.filter(({ key }) => !removed.has(key)).flatMap(({ hashes }) => hashes));
    for (const key of keys) {
      for (const name of [`f-${key}-0`, `f-${key}-1`, `u-${key}`]) await this.store.remove(name);
    }
    for (const hash of entries.filter(({ key }) => removed.has(key)).flatMap(({ hashes }) => hashes)) {
      if (hash && !needed.has(hash)) await this.store.remove(`c-${hash}`);
    }
  }

  /** Bytes that can be cached: `free` now, `freeable` after evicting everything that is not in use.
   * @param {number} maxNbytes the limit of the cache */
  async space(maxNbytes) {
    const entries = await this.entries();
    const sum = (/** @type {Listed[]} */ listed) => listed.reduce((n, { storedNbytes }) => n + storedNbytes, 0);
    const cached = sum(entries);
    const inUse = sum(entries.filter((entry) => entry.inUse));
    const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.().catch(() => null)) ?? {};
    const free = quota - usage;
    return { free: Math.min(maxNbytes - cached, free), freeable: Math.min(maxNbytes - inUse, free + cached - inUse) };
  }

  /** Evict orphaned chunks, then snapshots of Python, then the least recently used files, until `nbytes` more
   * fit. Nothing that is in use is evicted, and nothing at all if that would not be enough.
   * @param {number} nbytes @param {number} maxNbytes the limit of the cache
   * @returns {Promise<number>} the bytes that still do not fit */
  async makeRoom(nbytes, maxNbytes) {
    let { free, freeable } = await this.space(maxNbytes);
    if (nbytes > freeable) return nbytes - freeable;
    if (nbytes > free && (await this.dropOrphans())) free = (await this.space(maxNbytes)).free;
    const oldest = await this.entries();
    oldest.sort((a, b) => Number(isSnapshot(b.url)) - Number(isSnapshot(a.url)));
    for (const { key, inUse, storedNbytes } of oldest) {
      if (free >= nbytes) break;
      if (inUse || !storedNbytes) continue;
      await this.remove([key]);
      free += storedNbytes;
    }
    return Math.max(0, nbytes - free);
  }

  /** The names of chunks that no entry has: a tab that was closed between the two writes leaves them. */
  async orphans() {
    // Names first: a chunk that is written meanwhile is not among them.
    const names = (await this.store.names()).filter((name) => name.startsWith("c-"));
    const needed = new Set((await this.entries()).flatMap(({ hashes }) => hashes));
    return names.filter((name) => !needed.has(name.slice(2)));
  }

  /** Remove them; returns how many. */
  async dropOrphans() {
    const orphans = await this.orphans();
    for (const name of orphans) await this.store.remove(name);
    return orphans.length;
  }

  /** @param {string} name @returns {Promise<any>} */
  async #read(name) {
    try {
      const bytes = await this.store.get(name);
      return bytes && JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      return null; // a damaged entry counts as missing
    }
  }
}

/** Files that the page itself writes, under names that are no URLs. */
export class OwnFiles {
  #journal;
  #maxNbytes;
  /** Files being written, under a temporary name until they are complete. @type {Map<string, Entry>} */
  #unfinished = new Map();

  /** @param {Journal} journal @param {number} maxNbytes the limit of the cache */
  constructor(journal, maxNbytes) {
    this.#journal = journal;
    this.#maxNbytes = maxNbytes;
  }

  /** Begin a file that replaces an older one; returns the bytes that do not fit.
   * @param {string} url @param {number} nbytes @param {number} chunkNbytes */
  async begin(url, nbytes, chunkNbytes) {
    const missing = await this.#journal.makeRoom(nbytes, this.#maxNbytes);
    if (missing > 0) return missing;
    const hashes = new Array(Math.ceil(nbytes / chunkNbytes)).fill("");
    const rest = { etag: "", modified: "", sha256: "", missing: false };
    this.#unfinished.set(url, { v: 1, seq: 0, url: `${url}.part`, nbytes, chunkNbytes, hashes, ...rest });
    return 0;
  }

  /** Write the next chunk. The entry is saved first, so that no chunk is ever orphaned.
   * @param {string} url @param {Uint8Array<ArrayBuffer>} bytes */
  async next(url, bytes) {
    const entry = this.#unfinished.get(url);
    if (!entry) throw new Error("the file was not begun");
    const hash = await sha256(bytes);
    entry.hashes[entry.hashes.indexOf("")] = hash;
    await this.#journal.save(await keyOf(entry.url), entry);
    await this.#journal.store.put(`c-${hash}`, bytes);
  }

  /** Complete a file. @param {string} url */
  async end(url) {
    const entry = this.#unfinished.get(url);
    if (!entry || entry.hashes.includes("")) throw new Error("a part of the file was not written");
    const key = await keyOf(url);
    const before = await this.#journal.load(key);
    await this.#journal.save(key, { ...entry, url, seq: before?.seq ?? 0 });
    await this.#journal.touch(key);
  }

  /** Remove the temporary entry of a file, complete or not. @param {string} url */
  async drop(url) {
    const entry = this.#unfinished.get(url);
    this.#unfinished.delete(url);
    if (!entry) return;
    await this.#journal.remove([await keyOf(entry.url)]);
    await this.#journal.dropOrphans();
  }

  /** Bytes and chunks of a file, as JSON; null without one. @param {string} url */
  async find(url) {
    const entry = await this.#journal.load(await keyOf(url));
    if (entry?.url !== url) return "null";
    await this.#journal.touch(await keyOf(url));
    return JSON.stringify({ nbytes: entry.nbytes, count: entry.hashes.length });
  }

  /** A chunk; null where it is missing or damaged. @param {string} url @param {number} index */
  async chunk(url, index) {
    const entry = await this.#journal.load(await keyOf(url));
    const hash = entry?.hashes[index];
    if (!entry || !hash) return null;
    const data = await this.#journal.store.get(`c-${hash}`);
    const valid = data && data.length === chunkLength(entry, index) && (await sha256(data)) === hash;
    return valid ? data : null;
  }
}

/** @returns {Promise<Set<string | undefined>>} */
async function heldLocks() {
  const held = (await navigator.locks?.query())?.held ?? [];
  return new Set(held.map(({ name }) => name));
}

/** Whether a record is a valid entry. @param {any} entry @returns {entry is Entry} */
function isEntry(entry) {
  if (!entry || entry.v !== 1 || !Number.isSafeInteger(entry.seq)) return false;
  const { nbytes, chunkNbytes, hashes } = entry;
  const texts = [entry.url, entry.etag, entry.modified, entry.sha256];
  if (!texts.every((text) => typeof text === "string") || typeof entry.missing !== "boolean") return false;
  if (!Number.isSafeInteger(nbytes) || nbytes < 0 || nbytes > MAX_NBYTES) return false;
  if (!Number.isSafeInteger(chunkNbytes) || chunkNbytes < 1024) return false;
  if (!Array.isArray(hashes) || hashes.length !== Math.ceil(nbytes / chunkNbytes)) return false;
  return hashes.every((hash) => hash === "" || (typeof hash === "string" && HASH.test(hash)));
}
