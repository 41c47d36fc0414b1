// A worker of its own, since Python's start holds up the other one: while Python starts, a model's files
// come into this browser's store, or are checked where they are there. Python's worker takes them from
// there, chunk by chunk as they come.

import { filesOfFirstLoad, lastLoad, placeOf } from "./ahead.js";
import * as download from "./bridge/download.js";
import { createFetcher } from "./bridge/fetcher.js";
import * as http from "./bridge/http.js";
import * as journal from "./bridge/journal.js";
import * as manifest from "./bridge/manifest.js";
import * as pieces from "./bridge/pieces.js";
import { openRemembered } from "./bridge/remembered.js";
import * as shelf from "./bridge/shelf.js";
import * as store from "./bridge/store.js";

/** @typedef {import("./ahead.js").Wanted & { wheel: string }} Request */

const MOST_SMALL_NBYTES = 128 << 20;
const PROGRESS_MS = 200;

/** @returns {Promise<any>} */
function idb() {
  return import(/* @vite-ignore */ new URL("./vendor/idb.js", import.meta.url).href);
}

async function hashes() {
  await import(/* @vite-ignore */ new URL("./vendor/hash-wasm.js", import.meta.url).href);
  return /** @type {any} */ (globalThis).hashwasm; // the library sets a global
}

/** @param {string} address @returns {Promise<import("./ahead.js").Files | null>} */
async function filesOfLastLoad(address) {
  const remembered = await openRemembered(await idb());
  const files = await lastLoad(remembered, address);
  remembered.close();
  return files;
}

/** What the site says of first loads; see py/bascule/server/wheel.py. @param {string} wheel */
async function siteAhead(wheel) {
  if (!new URL(wheel).pathname.endsWith(".json")) return null;
  const answer = await fetch(wheel);
  return answer.ok ? (await answer.json()).ahead : null;
}

/** @param {Request} request */
async function prefetch(request) {
  const place = placeOf(request);
  if (!place) return;
  const { address, folder, file } = place;
  const parts = { store, http, journal, manifest, download, shelf, pieces, idb, hashes };
  const [fetcher, known] = await Promise.all([createFetcher(parts, "{}"), filesOfLastLoad(address)]);
  let files = known;
  if (!files && file) files = { small: [], large: [file] };
  files ??= await filesOfFirstLoad(await siteAhead(request.wheel), request, () => fetcher.listed(folder));
  if (!files) return;
  const { large } = files;
  let told = -1;
  const timer = setInterval(() => {
    const each = large.map((name) => fetcher.progress(folder, name));
    const [done, total] = [0, 1].map((at) => each.reduce((sum, pair) => sum + pair[at], 0));
    if (total && done !== told) postMessage({ done, total });
    told = done;
  }, PROGRESS_MS);
  const news = new BroadcastChannel("bascule:checked");
  await fetcher.prefetch(folder, files, MOST_SMALL_NBYTES, (url) => news.postMessage(url));
  clearInterval(timer);
  news.close();
}

addEventListener("message", ({ data: request }) => {
  prefetch(request).catch((error) => console.debug("Bascule could not fetch ahead:", error));
});
