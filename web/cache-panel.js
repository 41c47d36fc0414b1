// The panel of this browser's cache, models and Python's start: list, verify, remove; and a request to
// the browser, once, not to evict it when space runs short.

import { count, make, megabytes, plainButton } from "./dom.js";

/** @typedef {import("./client.js").BasculeClient} BasculeClient */

const ASKED = "bascule-asked-to-persist";

/** Browsers may evict storage that is not persistent. Some ask the user: so it is requested only once.
 * @returns {Promise<boolean>} whether it is persistent now */
export async function askToPersist() {
  const { storage } = navigator;
  if (!storage?.persist) return false;
  try {
    if (await storage.persisted()) return true;
    if (localStorage.getItem(ASKED)) return false;
    localStorage.setItem(ASKED, "yes");
    return await storage.persist();
  } catch {
    return false; // storage is blocked
  }
}

/**
 * A file in the cache (py/bascule/cache.py), and all files of one model.
 * @typedef {{ location: string, kind: string, stored_nbytes: number, nbytes: number, in_use: boolean }} CachedFile
 * @typedef {{ name: string, from: string, files: CachedFile[] }} CachedModel
 */

/** The models that files belong to: a folder is one, and so is a .gguf file that is not named model.gguf.
 * @param {CachedFile[]} files @returns {CachedModel[]} */
export function modelsOf(files) {
  /** @type {Map<string, CachedFile[]>} */
  const models = new Map();
  for (const file of files) {
    const { location } = file;
    const own = location.endsWith(".gguf") && !location.endsWith("/model.gguf");
    // A sentence encoder's modules are in folders such as 1_Pooling.
    const key = own ? location : location.replace(/(\/\d+_[A-Za-z]+)?\/[^/]*$/, "");
    models.set(key, [...(models.get(key) ?? []), file]);
  }
  return [...models].map(([key, its]) => ({ name: nameOf(key, its[0].kind), from: originOf(key), files: its }));
}

/** @param {string} location @param {string} kind of its files */
function nameOf(location, kind) {
  if (kind === "snapshot") return "Python's start";
  if (kind === "index") return `Index ${location.slice(location.indexOf(":") + 1)}`;
  return location.slice(location.lastIndexOf("/") + 1) || location;
}

/** The server, where it is not this page's. @param {string} location */
function originOf(location) {
  const { host } = URL.canParse(location) ? new URL(location) : { host: "" };
  return host === globalThis.location.host ? "" : host;
}

/** @param {CachedFile[]} files @param {"stored_nbytes" | "nbytes"} which */
function sum(files, which) {
  return files.reduce((total, file) => total + file[which], 0);
}

/** Lists the cache, and handles its buttons. */
export class CachePanel {
  #client;
  #list = make("ul", "");
  #status = make("p", "");

  /** @param {HTMLElement} panel closed, with a summary and the page's text
   * @param {BasculeClient} client */
  constructor(panel, client) {
    this.#client = client;
    this.#status.tabIndex = -1;
    this.#status.setAttribute("role", "status");
    this.#status.setAttribute("aria-live", "polite");
    panel.addEventListener("toggle", () => this.#show().catch((error) => this.#showError(error)));
    const verify = plainButton("Verify", () => this.#do(() => this.#verify()));
    const remove = plainButton("Remove all", () => this.#do(() => this.#removeAll()));
    [verify.name, remove.name] = ["verify", "remove"];
    panel.append(this.#list, this.#status, make("div", "row", verify, remove));
  }

  /** @param {() => Promise<string>} work whose message is shown afterwards */
  #do(work) {
    return work().then((text) => this.#show(text)).catch((error) => this.#showError(error));
  }

  async #removeAll() {
    await this.#client.cache("rm", null);
    return "Everything was removed.";
  }

  async #verify() {
    this.#status.textContent = "Verifying…";
    const damaged = Object.keys(await this.#client.cache("verify", null)).length;
    if (!damaged) return "No file in the cache is damaged.";
    return `${count(damaged, "file")} damaged: fetched again when needed.`;
  }

  /** @param {string} [text] */
  async #show(text) {
    /** @type {CachedFile[]} */
    const files = await this.#client.cache("ls", null);
    const models = modelsOf(files);
    this.#list.replaceChildren(...models.map((model) => this.#item(model)));
    const known = modelsOf(files.filter(({ kind }) => kind === "fetched"));
    const all = `${count(known.length, "model")}, ${megabytes(sum(files, "stored_nbytes"))} in all.`;
    this.#status.textContent = text ?? (models.length ? all : "Nothing is stored yet.");
  }

  /** @param {CachedModel} model */
  #item({ name, from, files }) {
    const [stored, all] = [sum(files, "stored_nbytes"), sum(files, "nbytes")];
    const size = stored === all ? megabytes(stored) : `${megabytes(stored)} of ${megabytes(all)}`;
    const facts = [size, from && `from ${from}`, files.some((file) => file.in_use) && "in use"];
    const button = plainButton("Remove", () => {
      this.#do(async () => {
        await this.#client.cache("rm", files.map((file) => file.location));
        return `${name} was removed.`;
      }).then(() => this.#status.focus());
    });
    button.setAttribute("aria-label", `Remove ${name}`);
    const label = make("span", "quiet", facts.filter(Boolean).join(" · "));
    return make("li", "", make("span", "", make("strong", "", name), " ", label), button);
  }

  /** @param {unknown} error */
  #showError(error) {
    this.#status.textContent = error instanceof Error ? error.message : String(error);
  }
}
