// Where bytes are kept in a page from one visit to the next: the origin's private file system (OPFS),
// the Cache API or IndexedDB, the first that proves to work. It imports nothing (see gpu.js).

/**
 * Named runs of bytes. `get` may fill and return a part of `into`; null for a name that is absent.
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
      await writeWhole(handle, bytes);
    } catch (error) {
      // Another tab that writes this name writes the same bytes: names follow from content.
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

/** Into a buffer that is used again and again, where a worker may; null where it may not.
 * @param {FileSystemFileHandle} handle @param {Uint8Array<ArrayBuffer>} into */
async function readInto(handle, into) {
  const open = /** @type {any} */ (handle).createSyncAccessHandle;
  if (!open) return null;
  let access;
  try {
    access = await open.call(handle, { mode: "read-only" });
  } catch {
    return null; // another tab reads it, in a browser whose handles are exclusive
  }
  try {
    const size = access.getSize();
    return size <= into.length ? into.subarray(0, access.read(into.subarray(0, size), { at: 0 })) : null;
  } finally {
    access.close();
  }
}

/** @param {FileSystemFileHandle} handle @param {Uint8Array<ArrayBuffer>} bytes */
async function writeWhole(handle, bytes) {
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
      throw new DOMException("the disk took a part only", "QuotaExceededError");
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

/** Answers of the Cache API. It is opened for each use: one that was cleared meanwhile takes what it is
 * given, and keeps nothing. */
class CacheStore {
  kind = "cache";

  static async open() {
    await caches.open(NAME);
    return new CacheStore();
  }

  /** @param {string} name */
  async get(name) {
    const found = await (await caches.open(NAME)).match(place(name));
    return found ? new Uint8Array(await found.arrayBuffer()) : null;
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  async put(name, bytes) {
    await (await caches.open(NAME)).put(place(name), new Response(bytes));
  }

  /** @param {string} name */
  async remove(name) {
    await (await caches.open(NAME)).delete(place(name));
  }

  async names() {
    return (await (await caches.open(NAME)).keys()).map(({ url }) => new URL(url).pathname.split("/").at(-1) ?? "");
  }
}

/** The Cache API wants URLs; nothing is ever fetched from these. @param {string} name */
function place(name) {
  const origin = /^https?:/.test(location.origin) ? location.origin : "https://cache.invalid";
  return `${origin}/.${NAME}/${name}`;
}

/** Rows of IndexedDB. */
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

/** What an open store says once site data were cleared: its folder is gone, its database closed. */
const CLEARED = new Set(["NotFoundError", "InvalidStateError", "NotReadableError", "UnknownError"]);

/** A store that is opened again, or the next one that works, when site data are cleared meanwhile. */
class LastingStore {
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
    return this.#lasting((store) => store.get(name, into));
  }

  /** @param {string} name @param {Uint8Array<ArrayBuffer>} bytes */
  put(name, bytes) {
    return this.#lasting((store) => store.put(name, bytes));
  }

  /** @param {string} name */
  remove(name) {
    return this.#lasting((store) => store.remove(name));
  }

  names() {
    return this.#lasting((store) => store.names());
  }

  /** @template T @param {(store: Store) => Promise<T>} work @returns {Promise<T>} */
  async #lasting(work) {
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
 * The first store that keeps what it is given, and why those before it do not.
 * @param {string} wanted "auto", a kind, or "none" @param {() => Promise<Idb>} idb loads the library
 * @returns {Promise<{ store: Store | null, refused: string[] }>}
 */
export async function openStore(wanted, idb) {
  const { store, refused } = await firstStore(wanted, idb);
  const reopen = async () => {
    const again = await firstStore(wanted, idb);
    if (!again.store) throw new Error(`no storage works any more (${again.refused.join("; ")})`);
    return again.store;
  };
  return { store: store && new LastingStore(store, reopen), refused };
}

/** @param {string} wanted @param {() => Promise<Idb>} idb
 * @returns {Promise<{ store: Store | null, refused: string[] }>} */
async function firstStore(wanted, idb) {
  /** @type {Record<string, () => Promise<Store>>} */
  const open = { opfs: FileStore.open, cache: CacheStore.open, indexeddb: () => RowStore.open(idb) };
  const refused = [];
  for (const kind of wanted === "auto" ? KINDS : KINDS.filter((k) => k === wanted)) {
    try {
      return { store: await soon(open[kind]().then(proven)), refused };
    } catch (error) {
      refused.push(`${kind}: ${/** @type {Error} */ (error)?.message || error}`);
    }
  }
  return { store: null, refused };
}

/** A store that gives back what it was given. @param {Store} store */
async function proven(store) {
  const name = `probe-${crypto.randomUUID()}`; // another tab may be probing as well
  const bytes = Uint8Array.of(98, 97, 115);
  await store.put(name, bytes);
  const found = await store.get(name, new Uint8Array(8));
  await store.remove(name);
  if (found?.join() !== bytes.join()) throw new Error("it does not give back what it was given");
  return store;
}

/** Some browsers never answer where storage is blocked. @template T @param {Promise<T>} work */
function soon(work) {
  return /** @type {Promise<T>} */ (new Promise((resolve, reject) => {
    let left = OPEN_TICKS;
    // While Python's start holds up this thread it hears no answer: that counts as one tick.
    const timer = setInterval(() => {
      left -= 1;
      if (left > 0) return;
      clearInterval(timer);
      reject(new Error(`no answer within ${OPEN_MS / 1000} s`));
    }, OPEN_MS / OPEN_TICKS);
    work.then(resolve, reject).finally(() => clearInterval(timer));
  }));
}
