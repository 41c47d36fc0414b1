// The store of a page's bytes from one visit to the next: the origin's private file system (OPFS), the
// Cache API or IndexedDB, the first that works when tried. It imports nothing (see gpu.js).

/**
 * Byte arrays by name. `get` may fill and return a part of `into`; null if there is no such name.
 * @typedef {{
 *   kind: string,
 *   get(name: string, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer> | null>,
 *   put(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>,
 *   remove(name: string): Promise<void>,
 *   names(): Promise<string[]>,
 * }} Store
 * @typedef {{ openDB: typeof import("idb").openDB }} Idb
 */

const NAME = "bascule";
const OPEN_MS = 3000;
const OPEN_TICKS = 10;
/** Best first. */
const KINDS = ["opfs", "cache", "indexeddb"];

/** Files of the origin's private file system. */
class FileStore {
  kind = "opfs";
  #folder;

  /** @param {FileSystemDirectoryHandle} folder */
  constructor(folder) {
    this.#folder = folder;
  }

  static async open() {
    const root = await navigator.storage.getDirectory();
    return new FileStore(await root.getDirectoryHandle(NAME, { create: true }));
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} [into] */
  async get(name, into) {
    try {
      const handle = await this.#folder.getFileHandle(name);
      return (into && (await readInto(handle, into))) ?? bytesOf(await handle.getFile());
    } catch (error) {
      if (/** @type {Error} */ (error).name === "NotFoundError") return null;
      throw error;
    }
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  async put(name, bytes) {
    const handle = await this.#folder.getFileHandle(name, { create: true });
    try {
      await writeAll(handle, bytes);
    } catch (error) {
      // Another tab is writing the same bytes: names are derived from content.
      if (/** @type {Error} */ (error).name === "NoModificationAllowedError") return;
      await this.#folder.removeEntry(name).catch(() => {});
      throw error;
    }
  }

  /** @param {string} name */
  async remove(name) {
    await this.#folder.removeEntry(name).catch(() => {});
  }

  async names() {
    const names = [];
    const folder = /** @type {any} */ (this.#folder); // TypeScript's own list lacks keys()
    for await (const name of folder.keys()) names.push(name);
    return names;
  }
}

/** Read a file into a reused buffer; null outside workers, or if the file is longer than it.
 * @param {FileSystemFileHandle} handle @param {Uint8Array<ArrayBuffer>} into */
async function readInto(handle, into) {
  const open = /** @type {any} */ (handle).createSyncAccessHandle;
  if (!open) return null;
  let access;
  try {
    access = await open.call(handle, { mode: "read-only" });
  } catch {
    return null; // another tab reads it, and this browser's handles are exclusive
  }
  try {
    const size = access.getSize();
    return size <= into.length ? into.subarray(0, access.read(into.subarray(0, size), { at: 0 })) : null;
  } finally {
    access.close();
  }
}

/** @param {FileSystemFileHandle} handle @param {Uint8Array<ArrayBuffer>} bytes */
async function writeAll(handle, bytes) {
  const open = /** @type {any} */ (handle).createSyncAccessHandle;
  if (!open) {
    const stream = await handle.createWritable();
    await stream.write(bytes);
    await stream.close();
    return;
  }
  const access = await open.call(handle);
  try {
    access.truncate(0);
    if (access.write(bytes, { at: 0 }) !== bytes.length) {
      throw new DOMException("only a part was written", "QuotaExceededError");
    }
    access.flush();
  } finally {
    access.close();
  }
}

/** @param {Blob} blob */
async function bytesOf(blob) {
  return new Uint8Array(await blob.arrayBuffer());
}

/** Responses in the Cache API. The cache is opened for each use: one that was cleared since then accepts
 * responses and stores nothing. */
class CacheStore {
  kind = "cache";

  static async open() {
    await caches.open(NAME);
    return new CacheStore();
  }

  /** @param {string} name */
  async get(name) {
    const response = await (await caches.open(NAME)).match(urlOf(name));
    return response ? new Uint8Array(await response.arrayBuffer()) : null;
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  async put(name, bytes) {
    await (await caches.open(NAME)).put(urlOf(name), new Response(bytes));
  }

  /** @param {string} name */
  async remove(name) {
    await (await caches.open(NAME)).delete(urlOf(name));
  }

  async names() {
    return (await (await caches.open(NAME)).keys()).map(({ url }) => new URL(url).pathname.split("/").at(-1) ?? "");
  }
}

/** The Cache API wants URLs; nothing is ever fetched from these. @param {string} name */
function urlOf(name) {
  const origin = /^https?:/.test(location.origin) ? location.origin : "https://cache.invalid";
  return `${origin}/.${NAME}/${name}`;
}

/** Records of IndexedDB. */
class RowStore {
  kind = "indexeddb";
  #base;

  /** @param {import("idb").IDBPDatabase} base */
  constructor(base) {
    this.#base = base;
  }

  /** @param {() => Promise<Idb>} idb */
  static async open(idb) {
    const { openDB } = await idb();
    const upgrade = (/** @type {import("idb").IDBPDatabase} */ base) => {
      base.createObjectStore("bytes");
    };
    return new RowStore(await openDB(`${NAME}-bytes`, 1, { upgrade }));
  }

  /** @param {string} name */
  async get(name) {
    return (await this.#base.get("bytes", name)) ?? null;
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  async put(name, bytes) {
    await this.#base.put("bytes", bytes.slice(), name);
  }

  /** @param {string} name */
  async remove(name) {
    await this.#base.delete("bytes", name);
  }

  async names() {
    return /** @type {string[]} */ (await this.#base.getAllKeys("bytes"));
  }
}

/** Errors of an open store once site data were cleared: its folder is gone, its database closed. */
const CLEARED = new Set(["NotFoundError", "InvalidStateError", "NotReadableError", "UnknownError"]);

/** A store that is reopened, or replaced by the next one that works, if site data are cleared. */
class ReopeningStore {
  #store;
  #open;
  /** @type {Promise<Store> | null} */
  #reopened = null;

  /** @param {Store} store @param {() => Promise<Store>} open */
  constructor(store, open) {
    this.#store = store;
    this.#open = open;
  }

  get kind() {
    return this.#store.kind;
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} [into] */
  get(name, into) {
    return this.#retried((store) => store.get(name, into));
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  put(name, bytes) {
    return this.#retried((store) => store.put(name, bytes));
  }

  /** @param {string} name */
  remove(name) {
    return this.#retried((store) => store.remove(name));
  }

  names() {
    return this.#retried((store) => store.names());
  }

  /** @template T @param {(store: Store) => Promise<T>} work @returns {Promise<T>} */
  async #retried(work) {
    try {
      return await work(this.#store);
    } catch (error) {
      if (!CLEARED.has(/** @type {Error} */ (error)?.name)) throw error;
      this.#reopened ??= this.#open().finally(() => (this.#reopened = null));
      this.#store = await this.#reopened;
      return work(this.#store);
    }
  }
}

/**
 * Open the first store that works, and give the reasons why those before it do not.
 * @param {string} wanted "auto", a kind, or "none" @param {() => Promise<Idb>} idb loads the library
 * @returns {Promise<{ store: Store | null, problems: string[] }>}
 */
export async function openStore(wanted, idb) {
  const { store, problems } = await firstStore(wanted, idb);
  const reopen = async () => {
    const again = await firstStore(wanted, idb);
    if (!again.store) throw new Error(`no storage works any more (${again.problems.join("; ")})`);
    return again.store;
  };
  return { store: store && new ReopeningStore(store, reopen), problems };
}

/** @param {string} wanted @param {() => Promise<Idb>} idb
 * @returns {Promise<{ store: Store | null, problems: string[] }>} */
async function firstStore(wanted, idb) {
  /** @type {Record<string, () => Promise<Store>>} */
  const open = { opfs: FileStore.open, cache: CacheStore.open, indexeddb: () => RowStore.open(idb) };
  const problems = [];
  for (const kind of wanted === "auto" ? KINDS : KINDS.filter((k) => k === wanted)) {
    try {
      return { store: await withTimeout(open[kind]().then(checked)), problems };
    } catch (error) {
      problems.push(`${kind}: ${/** @type {Error} */ (error)?.message || error}`);
    }
  }
  return { store: null, problems };
}

/** Check that a store returns what was written to it. @param {Store} store */
async function checked(store) {
  const name = `probe-${crypto.randomUUID()}`; // another tab may be probing as well
  const bytes = Uint8Array.of(98, 97, 115);
  await store.put(name, bytes);
  const stored = await store.get(name, new Uint8Array(8));
  await store.remove(name);
  if (stored?.join() !== bytes.join()) throw new Error("it does not return what was written to it");
  return store;
}

/** Reject after OPEN_MS: some browsers never answer if storage is blocked.
 * @template T @param {Promise<T>} work */
function withTimeout(work) {
  return /** @type {Promise<T>} */ (new Promise((resolve, reject) => {
    let remaining = OPEN_TICKS;
    // While Python starts, it blocks this thread, which hears no answer: that counts as one tick.
    const timer = setInterval(() => {
      remaining -= 1;
      if (remaining > 0) return;
      clearInterval(timer);
      reject(new Error(`no answer within ${OPEN_MS / 1000} s`));
    }, OPEN_MS / OPEN_TICKS);
    work.then(resolve, reject).finally(() => clearInterval(timer));
  }));
}
