// A worker of its own, since Python's start holds up the other one: while Python starts, a model's files
// come into this browser's store. Python's worker takes them from there, chunk by chunk as they come.

import * as download from "./bridge/download.js";
import { createFetcher } from "./bridge/fetcher.js";
import * as http from "./bridge/http.js";
import * as journal from "./bridge/journal.js";
import * as manifest from "./bridge/manifest.js";
import * as pieces from "./bridge/pieces.js";
import * as shelf from "./bridge/shelf.js";
import * as store from "./bridge/store.js";

/** What is worth fetching ahead. @typedef {{ small: string[], large: string }} Files */

/** @type {Files} */
const ENCODER = {
  small: [
    "config.json",
    "tokenizer.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "modules.json",
  ],
  large: "model.safetensors",
};
/** One file holds all. @type {Files} */
const LANGUAGE_MODEL = { small: [], large: "model.gguf" };
// The language models of py/bascule/model/registry.py: no file is asked for in vain.
const LANGUAGE_MODELS = ["SmolLM2-135M-Instruct"];
const GGUF_FILE = /\/([A-Za-z0-9][A-Za-z0-9._-]{0,199}\.gguf)$/;
const MOST_SMALL_NBYTES = 128 << 20;
const PROGRESS_MS = 200;

/** The URL of a model given as the page gives it; "" where Python has to judge first.
 * @param {string} model @param {string} models where known ones lie */
function urlOf(model, models) {
  try {
    const path = model.includes("/") ? model : models + model;
    const { href, protocol, username, password, search, hash } = new URL(path, location.origin);
    const plain = !username && !password && !search && !hash;
    return plain && /^https?:$/.test(protocol) ? href.replace(/\/$/, "") : "";
  } catch {
    return "";
  }
}

/** Which files a model has, as far as can be told without asking for them.
 * @param {string} model @param {string} folder @param {import("./bridge/fetcher.js").Fetcher} fetcher
 * @returns {Promise<Files>} */
async function filesOf(model, folder, fetcher) {
  if (LANGUAGE_MODELS.includes(model)) return LANGUAGE_MODEL;
  const listed = model.includes("/") ? await fetcher.listed(folder) : [];
  return listed.includes(LANGUAGE_MODEL.large) && !listed.includes(ENCODER.large) ? LANGUAGE_MODEL : ENCODER;
}

/** @param {string} model @param {string} models */
async function prefetch(model, models) {
  const url = urlOf(model, models);
  if (!url) return;
  const file = GGUF_FILE.exec(url)?.[1];
  if (!file && url.endsWith(".gguf")) return; // Python refuses it
  const folder = file ? url.slice(0, -file.length - 1) : url;
  const idb = () => import(/* @vite-ignore */ new URL("./vendor/idb.js", import.meta.url).href);
  const hashes = async () => {
    await import(/* @vite-ignore */ new URL("./vendor/hash-wasm.js", import.meta.url).href);
    return /** @type {any} */ (globalThis).hashwasm; // the library sets a global
  };
  const parts = { store, http, journal, manifest, download, shelf, pieces, idb, hashes };
  const fetcher = await createFetcher(parts, "{}");
  const { small, large } = file ? { small: [], large: file } : await filesOf(model, folder, fetcher);
  let told = -1;
  const timer = setInterval(() => {
    const [done, total] = fetcher.progress(folder, large);
    if (total && done !== told) postMessage({ done, total });
    told = done;
  }, PROGRESS_MS);
  const news = new BroadcastChannel("bascule:checked");
  await fetcher.prefetch(folder, small, large, MOST_SMALL_NBYTES, (url) => news.postMessage(url));
  clearInterval(timer);
  news.close();
}

addEventListener("message", ({ data: { model, models } }) => {
  prefetch(model, models).catch((error) => console.debug("Bascule could not fetch ahead:", error));
});
