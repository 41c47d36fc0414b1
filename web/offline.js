// A service worker: a site that was visited before opens with its server gone. It keeps the pages,
// the wheel, its memory snapshot and Pyodide; model files are the loader's affair and pass by.
//
// offline-client.js registers it as offline.js?pyodide=PATH&patience=MS. It is a classic script, for
// browsers whose service workers know no modules.

/**
 * The part of a service worker's world that is used here; the page's types lack it.
 * @typedef {Event & { waitUntil(work: Promise<unknown>): void }} LifeEvent
 * @typedef {LifeEvent & { request: Request, respondWith(answer: Promise<Response>): void }} FetchEvent
 * @typedef {LifeEvent & { data: any, ports: readonly MessagePort[] }} KeepEvent
 * @typedef {{ install: LifeEvent, activate: LifeEvent, fetch: FetchEvent, message: KeepEvent }} Events
 * @typedef {object} ServiceWorkerWorld
 * @property {ServiceWorkerRegistration} registration
 * @property {{ claim(): Promise<void> }} clients
 * @property {() => Promise<void>} skipWaiting
 * @property {<K extends keyof Events>(type: K, hear: (event: Events[K]) => void) => void} addEventListener
 */
const world = /** @type {ServiceWorkerWorld} */ (/** @type {unknown} */ (self));
const settings = new URL(location.href).searchParams;

const CACHES = "bascule-offline-"; // how the caches of all versions of this file begin
const CACHE = `${CACHES}1`;
const ROOT = new URL("./", world.registration.scope).href;
const INDEX = `${ROOT}wheel/index.json`;
const MODELS = `${ROOT}models/`;
const PYODIDE = new URL(settings.get("pyodide") ?? "pyodide/", ROOT).href;
const PATIENCE_MS = Number(settings.get("patience") ?? 3000);
const REVALIDATE_AFTER_MS = 3000; // by then Python has started: no visit mixes two versions
const PAGE_PARTS = ["script", "style", "worker", "sharedworker", "image", "font", "manifest"];
const PYODIDE_MODULE = `${PYODIDE}pyodide.mjs`;
const PYODIDE_LOCK = `${PYODIDE}pyodide-lock.json`;
const PYODIDE_PACKAGES = ["numpy", "micropip"]; // what a page may ask Pyodide for later

world.addEventListener("install", (event) => event.waitUntil(world.skipWaiting()));

world.addEventListener("activate", (event) => event.waitUntil(takeOver()));

world.addEventListener("fetch", (event) => {
  const kind = kindOf(event.request);
  if (kind === "page" || kind === "index") event.respondWith(networkFirst(event));
  else if (kind) event.respondWith(cacheFirst(event));
});

// The page sends what it has; the answer is whether all that it needs is cached.
world.addEventListener("message", (event) => {
  if (event.data?.type !== "keep") return;
  event.waitUntil(fill(event.data.urls).then((all) => event.ports[0]?.postMessage(all)));
});

async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(CACHES) && name !== CACHE) await caches.delete(name);
  }
  await world.clients.claim();
}

/** @param {Request} request */
function kindOf({ method, headers, url, mode, destination }) {
  const place = bare(url);
  if (method !== "GET" || headers.has("range") || !isOurs(place)) return "";
  if (place === INDEX) return "index";
  if (place.startsWith(PYODIDE)) return "pyodide";
  if (place.endsWith(".whl") || isSnapshot(place)) return "wheel";
  return mode === "navigate" || PAGE_PARTS.includes(destination) ? "page" : "";
}

/** @param {string} url without what follows the path: static files do not depend on it */
function isOurs(url) {
  const own = url.startsWith(ROOT) && !url.startsWith(MODELS);
  return new URL(url).origin === location.origin && (own || url.startsWith(PYODIDE));
}

/** @param {string} url */
function bare(url) {
  return url.split(/[?#]/, 1)[0];
}

/** What may be edited at any time: the copy serves where the network fails or takes too long.
 * @param {FetchEvent} event */
async function networkFirst(event) {
  const place = bare(event.request.url);
  const asked = fetch(event.request).then((answer) => {
    if (answer.ok) event.waitUntil(renew(place, answer.clone()));
    return answer;
  });
  const heard = asked.catch(() => null);
  event.waitUntil(heard); // a late answer is kept for the next time
  const answer = await Promise.race([heard, rest(PATIENCE_MS)]);
  return answer || (await held(place, event.request.url)) || asked;
}

/** What its name or its validator identifies. @param {FetchEvent} event */
async function cacheFirst(event) {
  const place = bare(event.request.url);
  const response = await held(place, event.request.url);
  if (response) {
    if (place.startsWith(PYODIDE)) event.waitUntil(revalidate());
    return response;
  }
  const answer = await fetch(event.request);
  if (answer.ok) event.waitUntil(keep(place, answer.clone()));
  return answer;
}

/** The copy, with all its headers, those that isolate a page among them. For a request with a query it bears
 * no URL, and so takes that of its request; else it is handed on as it is, which passes its bytes by this
 * thread. @param {string} place @param {string} [url] */
async function held(place, url = place) {
  const response = await caches.match(place, { cacheName: CACHE }).catch(() => undefined);
  return response && (response.url === url ? response : new Response(response.body, response));
}

/** Keep an answer, unless the copy is the same: a visit asks for some sixty files that have not changed.
 * @param {string} place @param {Response} answer */
async function renew(place, answer) {
  const [known, etag] = [await held(place), answer.headers.get("etag")];
  if (!etag || known?.headers.get("etag") !== etag) await keep(place, answer);
}

/** Whether it could be kept. @param {string} place @param {Response} answer @returns {Promise<boolean>} */
async function keep(place, answer) {
  try {
    // An index is kept once its wheel is: offline, it must not name one that is not there.
    const parts = place === INDEX ? await holdParts(await answer.clone().json()) : [place];
    const cache = await caches.open(CACHE);
    await cache.put(place, answer);
    for (const part of parts) await dropOlder(cache, part);
    return true;
  } catch (error) {
    console.debug(`Not kept for offline use: ${place} (${error})`); // a full disk, say
    return false;
  }
}

/** @typedef {{ wheel: string, snapshot?: { file: string } | null }} Index */

/** The wheel, without which this throws, and the snapshot, without which Python starts all the same.
 * @param {Index} index @returns {Promise<string[]>} */
async function holdParts(index) {
  const [wheel, ...snapshots] = partsOf(index);
  if (!(await hold(wheel))) throw new Error(`without ${wheel}`);
  await Promise.all(snapshots.map(hold));
  return [wheel, ...snapshots];
}

/** @param {Index} index */
function partsOf({ wheel, snapshot }) {
  const files = snapshot ? [wheel, snapshot.file] : [wheel];
  const [first, ...places] = files.map((file) => new URL(file, INDEX).href);
  return [first, ...places.filter((place) => isOurs(place) && isSnapshot(place))];
}

/** A memory snapshot of Python, which a site may ship beside its wheel. @param {string} place */
function isSnapshot(place) {
  return /\.snapshot(\.gz)?$/.test(place);
}

/** Drop a wheel's other versions, of snapshots all others; never those that the kept index names: it stands
 * until all that a new one names is there. @param {Cache} cache @param {string} place */
async function dropOlder(cache, place) {
  if (!place.endsWith(".whl") && !isSnapshot(place)) return;
  const index = await cache.match(INDEX);
  const named = index ? partsOf(await index.json()) : [];
  const [project] = (isSnapshot(place) ? /^.*\// : /^.*\/[^/]+?-/).exec(place) ?? [place];
  for (const { url } of await cache.keys()) {
    const same = isSnapshot(place) ? isSnapshot(url) : url.endsWith(".whl");
    const older = url !== place && url.startsWith(project) && same;
    if (older && !named.includes(url)) await cache.delete(url);
  }
}

/** Fetch what is not kept yet, as a rule from the browser's own cache. The index is looked up anew.
 * What the server lacks, the site does without. @param {string} place @returns {Promise<boolean>} */
async function hold(place) {
  if (place !== INDEX && (await held(place))) return true;
  const answer = await fetch(place, { cache: "default" }).catch(() => null);
  if (!answer) return Boolean(await held(place));
  return answer.ok ? keep(place, answer) : answer.status === 404;
}

/** @param {string[]} urls */
async function fill(urls) {
  const places = urls.map(bare).filter((url) => isOurs(url) && url !== INDEX);
  const first = [INDEX, PYODIDE_MODULE, PYODIDE_LOCK, ...new Set(places)];
  const all = await Promise.all(first.map(hold));
  const then = [...(await pyodideParts()), ...(await packageFiles())];
  all.push(...(await Promise.all(then.map((name) => hold(PYODIDE + name)))));
  return all.every(Boolean);
}

/** Pyodide's own files, which it names itself. */
async function pyodideParts() {
  const code = await (await held(PYODIDE_MODULE))?.text();
  return new Set(code?.match(/\bpyodide\.asm\.(?:m?js|wasm)\b|\bpython_stdlib\.zip\b/g));
}

/** The packages that Python starts with, from Pyodide's list of them. */
async function packageFiles() {
  const lock = await held(PYODIDE_LOCK);
  /** @type {Record<string, { file_name: string, depends: string[] }>} */
  const known = lock ? (await lock.json()).packages : {};
  const names = new Set(PYODIDE_PACKAGES);
  for (const name of names) known[name]?.depends.forEach((needed) => names.add(needed));
  return [...names].filter((name) => known[name]).map((name) => known[name].file_name);
}

/** @type {Promise<void> | null} */
let revalidating = null;

function revalidate() {
  revalidating ??= rest(REVALIDATE_AFTER_MS)
    .then(renewPyodide)
    .catch((error) => console.debug(`Pyodide was not looked up (${error}).`))
    .finally(() => (revalidating = null));
  return revalidating;
}

/** Ask whether the kept files still hold; those that do not are replaced at once, or none is. */
async function renewPyodide() {
  const cache = await caches.open(CACHE);
  /** @type {[string, Response][]} */
  const changed = [];
  for (const { url } of await cache.keys()) {
    if (!url.startsWith(PYODIDE)) continue;
    const etag = (await cache.match(url))?.headers.get("etag");
    const headers = etag ? { "If-None-Match": etag } : undefined;
    const answer = await fetch(url, { headers, cache: etag ? "no-store" : "default" });
    if (answer.ok) changed.push([url, new Response(await answer.arrayBuffer(), answer)]);
    else if (answer.status === 404) await cache.delete(url);
    else if (answer.status !== 304) throw new Error(`${answer.status} for ${url}`);
  }
  for (const [url, answer] of changed) await cache.put(url, answer);
}

/** @param {number} ms @returns {Promise<null>} */
function rest(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(null), ms));
}
