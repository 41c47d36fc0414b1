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

/** @param {string} model */
async function prefetch(model) {
  const folder = folderOf(model);
  if (!folder) return;
  const idb = () => import(new URL("./vendor/idb.js", import.meta.url).href);
  const hashes = async () => {
    await import(new URL("./vendor/hash-wasm.js", import.meta.url).href);
    return /** @type {any} */ (globalThis).hashwasm; // the library sets a global
  };
  const parts = { store, http, journal, manifest, download, shelf, pieces, idb, hashes };
  const fetcher = await createFetcher(parts, "{}");
  let told = -1;
  const timer = setInterval(() => {
    const [done, total] = fetcher.progress(folder, LARGE);
    if (total && done !== told) postMessage({ done, total });
    told = done;
  }, PROGRESS_MS);
  const news = new BroadcastChannel("bascule:checked");
  await fetcher.prefetch(folder, SMALL, LARGE, MOST_SMALL_NBYTES, (url) => news.postMessage(url));
  clearInterval(timer);
  news.close();
}

addEventListener("message", ({ data: model }) => {
  prefetch(model).catch((error) => console.debug("Bascule could not fetch ahead:", error));
});
