// The page's own Fetcher, as Python makes it (py/bascule/weights/source_browser.py): for prefetch.js, and
// for Python's worker, which has it before Python asks.

import * as download from "./bridge/download.js";
import { createFetcher } from "./bridge/fetcher.js";
import * as http from "./bridge/http.js";
import * as journal from "./bridge/journal.js";
import * as manifest from "./bridge/manifest.js";
import * as pieces from "./bridge/pieces.js";
import * as shelf from "./bridge/shelf.js";
import * as store from "./bridge/store.js";

// Bundlers find a file by `new URL("...", import.meta.url)`, written out like this.

/** @returns {Promise<any>} */
export function idb() {
  return import(/* @vite-ignore */ new URL("./vendor/idb.js", import.meta.url).href);
}

async function hashes() {
  await import(/* @vite-ignore */ new URL("./vendor/hash-wasm.js", import.meta.url).href);
  return /** @type {any} */ (globalThis).hashwasm; // the library sets a global
}

/** @returns {Promise<import("./bridge/fetcher.js").Fetcher>} */
export function createPageFetcher() {
  return createFetcher({ store, http, journal, manifest, download, shelf, pieces, idb, hashes }, "{}");
}
