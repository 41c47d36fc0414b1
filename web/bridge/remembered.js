// What was learned about this machine, stored in IndexedDB by idb. It imports nothing (see gpu.js): the
// library's module is an argument. A database that is missing, blocked, full, damaged or slow costs speed
// only: the console warns once, and entries are stored in this page's memory instead.

/** @typedef {Pick<typeof import("idb"), "openDB" | "deleteDB">} Library */
/** @typedef {import("idb").IDBPDatabase} Database */

const STORE = "entries";
const MAX_ENTRIES = 100;
const LIMIT_MS = 3000;
const TICKS = 10; // of a limit
const WARNED = "basculeRememberedWarned";

/** Small JSON objects by key, as text. No method rejects, or waits longer than the limit. */
export class Remembered {
  #database;
  #limitMs;
  /** @type {Map<string, string>} */
  #memory = new Map();

  /** @param {Database | null} database @param {number} limitMs */
  constructor(database, limitMs) {
    this.#database = database;
    this.#limitMs = limitMs;
  }

  /** The entry of that key; empty if there is no valid one. @param {string} key @returns {Promise<string>} */
  async get(key) {
    const entry = await this.#attempt((database) => database.get(STORE, key));
    if (entry === undefined) return this.#memory.get(key) ?? "";
    if (isEntry(entry?.json)) return entry.json;
    this.warn("an entry was damaged and has been dropped");
    await this.#attempt((database) => database.delete(STORE, key));
    return "";
  }

  /** @param {string} key @param {string} json @returns {Promise<void>} */
  async put(key, json) {
    const entry = { json, at: Date.now() };
    const done = await this.#attempt((database) => database.put(STORE, entry, key));
    if (done === undefined) this.#memory.set(key, json);
    else await this.#prune();
  }

  /** @param {string} key @returns {Promise<void>} */
  async forget(key) {
    this.#memory.delete(key);
    await this.#attempt((database) => database.delete(STORE, key));
  }

  /** @returns {Promise<void>} */
  async clear() {
    this.#memory.clear();
    await this.#attempt((database) => database.clear(STORE));
  }

  close() {
    this.#database?.close();
    this.#database = null;
  }

  /** @param {string} what */
  warn(what) {
    // Once per worker: early.js opens the database, and then Python.
    if (Reflect.get(globalThis, WARNED)) return;
    Reflect.set(globalThis, WARNED, true);
    console.warn(`What Bascule learns about this machine is not all kept: ${what}.`);
  }

  /** The result of work on the database; undefined where it fails. @template T
   * @param {(database: Database) => Promise<T>} work @returns {Promise<T | undefined>} */
  async #attempt(work) {
    if (!this.#database) return undefined;
    try {
      return await within(work(this.#database), this.#limitMs);
    } catch (error) {
      this.warn(`IndexedDB failed (${error})`);
      this.close();
      return undefined;
    }
  }

  /** Delete the oldest entries. */
  async #prune() {
    await this.#attempt(async (database) => {
      const more = (await database.count(STORE)) - MAX_ENTRIES;
      if (more <= 0) return;
      const { store, done } = database.transaction(STORE, "readwrite");
      let cursor = await store.index("at").openCursor();
      for (let i = 0; i < more && cursor; i++) {
        await cursor.delete();
        cursor = await cursor.continue();
      }
      await done;
    });
  }
}

/** Never rejects. @param {Library} library @param {string} [name] @param {number} [limitMs]
 * @returns {Promise<Remembered>} */
export async function openRemembered(library, name = "bascule", limitMs = LIMIT_MS) {
  try {
    let database = await within(open(library, name), limitMs, (late) => late.close());
    if (!isOurs(database)) {
      database.close();
      await within(library.deleteDB(name), limitMs);
      database = await within(open(library, name), limitMs, (late) => late.close());
    }
    return new Remembered(database, limitMs);
  } catch (error) {
    const none = new Remembered(null, limitMs);
    none.warn(`IndexedDB cannot be opened (${error})`);
    return none;
  }
}

/** @param {Library} library @param {string} name @returns {Promise<Database>} */
async function open(library, name) {
  /** @type {Database} */
  const database = await library.openDB(name, 1, {
    upgrade: (created) => {
      created.createObjectStore(STORE).createIndex("at", "at");
    },
    // Another tab waits to delete it.
    blocking: () => database.close(),
  });
  return database;
}

/** Whether it has the object store and index of `open`. @param {Database} database */
function isOurs(database) {
  if (!database.objectStoreNames.contains(STORE)) return false;
  return database.transaction(STORE).store.indexNames.contains("at");
}

/** @param {unknown} json */
function isEntry(json) {
  if (typeof json !== "string") return false;
  try {
    const value = JSON.parse(json);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** Rejects after the limit; a later result is passed to `late`. @template T
 * @param {Promise<T>} work @param {number} limitMs @param {(result: T) => void} [late]
 * @returns {Promise<T>} */
function within(work, limitMs, late) {
  return new Promise((resolve, reject) => {
    let remaining = TICKS;
    // While Python's start blocks this thread no answer arrives: that counts as one tick.
    const timer = setInterval(() => {
      remaining -= 1;
      if (remaining > 0) return;
      clearInterval(timer);
      reject(new Error(`no answer within ${limitMs} ms`));
      if (late) work.then(late, () => {});
    }, limitMs / TICKS);
    work.then(resolve, reject).finally(() => clearInterval(timer));
  });
}
