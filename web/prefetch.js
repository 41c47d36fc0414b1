// A separate worker, since Python's start blocks the other one: while Python starts, a model's files
// are fetched into this browser's store, or revalidated if they are there. Python's worker reads them from
// there, chunk by chunk as they arrive.

import { filesOfFirstLoad, lastLoad, placeOf } from "./ahead.js";
import { openRemembered } from "./bridge/remembered.js";
import { createPageFetcher, idb } from "./page-fetcher.js";
// The imports of these, too: the browser then requests all of them at once, not level by level.
import "./bridge/download.js";
import "./bridge/fetcher.js";
import "./bridge/http.js";
import "./bridge/journal.js";
import "./bridge/manifest.js";
import "./bridge/pieces.js";
import "./bridge/shelf.js";
import "./bridge/store.js";

/**
 * `checked` leads to Python's worker, and gets each file whose version the server was asked for, and the
 * bytes of small ones.
 * @typedef {import("./ahead.js").Wanted & { wheel: string, checked: MessagePort }} Request
 */

const MAX_SMALL_NBYTES = 128 << 20;
const PROGRESS_MS = 200;

/** @param {string} address @returns {Promise<import("./ahead.js").Files | null>} */
async function filesOfLastLoad(address) {
  const remembered = await openRemembered(await idb());
  const files = await lastLoad(remembered, address);
  remembered.close();
  return files;
}

/** The site's files of first loads; see py/bascule/server/wheel.py. @param {string} wheel */
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
  const [fetcher, known] = await Promise.all([createPageFetcher(), filesOfLastLoad(address)]);
  let files = known;
  if (!files && file) files = { small: [], large: [file] };
  files ??= await filesOfFirstLoad(await siteAhead(request.wheel), request, () => fetcher.listed(folder));
  if (!files) return;
  const { large } = files;
  let reported = -1;
  const timer = setInterval(() => {
    const each = large.map((name) => fetcher.progress(folder, name));
    const [done, total] = [0, 1].map((at) => each.reduce((sum, pair) => sum + pair[at], 0));
    if (total && done !== reported) postMessage({ done, total });
    reported = done;
  }, PROGRESS_MS);
  try {
    await fetcher.prefetch(folder, files, MAX_SMALL_NBYTES, (checked) =>
      request.checked.postMessage(checked, checked.bytes ? [checked.bytes.buffer] : []),
    );
  } finally {
    clearInterval(timer);
  }
}

addEventListener("message", ({ data: request }) => {
  prefetch(request).catch((error) => console.debug("Bascule could not fetch ahead:", error));
});
