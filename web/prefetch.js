// What needs no Python begins before Python is up: the caches open, the small files of a model come, and
// its weights begin to come. Python joins the same fetcher (weights/source_browser.py).

import * as download from "./bridge/download.js";
import { createFetcher } from "./bridge/fetcher.js";
import * as http from "./bridge/http.js";
import * as journal from "./bridge/journal.js";
import * as manifest from "./bridge/manifest.js";
import * as pieces from "./bridge/pieces.js";
import * as store from "./bridge/store.js";

/** @typedef {import("./bridge/fetcher.js").Fetcher} Fetcher */

const SMALL = [
  "config.json",
  "tokenizer.json",
  "sentence_bert_config.json",
  "1_Pooling/config.json",
  "modules.json",
];
const LARGE = "model.safetensors";
const MOST_SMALL_NBYTES = 128 << 20;
const PROGRESS_MS = 200;

/** Open the caches, and hand the fetcher to Python. @returns {Promise<Fetcher>} */
function openFetcher() {
  const idb = () => import(new URL("./vendor/idb.js", import.meta.url).href);
  const hashes = async () => {
    await import(new URL("./vendor/hash-wasm.js", import.meta.url).href);
    return /** @type {any} */ (globalThis).hashwasm; // the library sets a global
  };
  const parts = { store, http, journal, manifest, download, pieces, idb, hashes };
  const fetcher = createFetcher(parts, "{}");
  Object.assign(globalThis, { basculeFetcher: fetcher });
  return fetcher;
}

/** The folder of a model given as the page gives it; "" where Python has to judge first.
 * @param {string} model */
function folderOf(model) {
  try {
    const path = model.includes("/") ? model : `/models/${model}`;
    const { href, protocol, username, password, search, hash } = new URL(path, location.origin);
    const plain = !username && !password && !search && !hash;
    return plain && /^https?:$/.test(protocol) ? href.replace(/\/$/, "") : "";
  } catch {
    return "";
  }
}

/**
 * Begin; never rejects, since Python asks for the same files and tells what is wrong.
 * @param {string} model @param {(done: number, total: number) => void} report bytes of the weights
 * @returns {() => void} ends the reports
 */
export function prefetch(model, report) {
  const folder = folderOf(model);
  const fetcher = openFetcher();
  if (folder) fetcher.then((ready) => ready.prefetch(folder, SMALL, LARGE, MOST_SMALL_NBYTES)).catch(() => {});
  let told = -1;
  const timer = setInterval(async () => {
    const [done, total] = (await fetcher).progress(folder, LARGE);
    if (total && done !== told) report(done, total);
    told = done;
  }, PROGRESS_MS);
  return () => clearInterval(timer);
}
