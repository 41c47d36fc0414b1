// A model in a worker, for any page: what window.bascule is.

import { BasculeError } from "./protocol.js";

/** @typedef {import("./protocol.js").Answer} Answer */
/** @typedef {import("./protocol.js").Loaded} Loaded */
/** @typedef {import("./protocol.js").Embedded} Embedded */
/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {{ resolve: (value: any) => void, reject: (error: Error) => void }} Waiting */

export class BasculeClient {
  #worker;
  #next = 1;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #onProgress;
  /** What the last load told. @type {Loaded | null} */
  loaded = null;

  /**
   * @param {string} pyodideUrl @param {(progress: Progress) => void} onProgress
   * @param {boolean} [countProxies] for tests: `stats` tells the live Pyodide proxies
   */
  constructor(pyodideUrl, onProgress, countProxies = false) {
    this.#onProgress = onProgress;
    const url = new URL("./worker.js", import.meta.url);
    url.searchParams.set("pyodide", pyodideUrl);
    if (countProxies) url.searchParams.set("count-proxies", "");
    this.#worker = new Worker(url, { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#hear(data);
    this.#worker.onerror = (event) => this.#fail(event.message || "The worker could not start.");
    this.#worker.onmessageerror = () => this.#fail("A message from the worker was unreadable.");
  }

  /** @param {string} model @param {string} tier @returns {Promise<Loaded>} */
  async load(model, tier) {
    this.loaded = null;
    this.loaded = await this.#ask({ type: "load", model, tier });
    return /** @type {Loaded} */ (this.loaded);
  }

  /** @param {string[]} texts @returns {Promise<Embedded & { tier: string }>} */
  async embed(texts) {
    const found = await this.#ask({ type: "embed", texts });
    return { ...found, tier: this.loaded?.tier ?? "" };
  }

  /** @returns {Promise<Record<string, number>>} */
  stats() {
    return this.#ask({ type: "stats" });
  }

  /** @returns {Promise<void>} */
  cancel() {
    return this.#ask({ type: "cancel" });
  }

  /** @returns {Promise<void>} */
  close() {
    return this.#ask({ type: "close" });
  }

  /** @param {object} request */
  #ask(request) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...request });
    });
  }

  /** @param {Answer} answer */
  #hear(answer) {
    if (answer.type === "progress") {
      this.#onProgress(answer);
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.type === "error") waiting?.reject(new BasculeError(answer.fault));
    else waiting?.resolve(answer.value);
  }

  /** The worker itself has failed: nobody who waits would ever be answered. @param {string} what */
  #fail(what) {
    const hint = "Reload the page; the browser's console may say more.";
    for (const { reject } of this.#waiting.values()) {
      reject(new BasculeError({ category: "worker", what, hint }));
    }
    this.#waiting.clear();
  }
}
