// A service worker: a site that was visited before opens without its server. It caches the pages,
// the wheel, its memory snapshot and Pyodide; model files are left to the loader.
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

/** For files that may change at any time: the copy is used if the network fails or takes too long.
 * @param {FetchEvent} event */
async function networkFirst(event) {
  const place = bare(event.request.url);
  const fetching = fetch(event.request).then((response) => {
    if (response.ok) event.waitUntil(renew(place, response.clone()));
    return response;
  });
  const settled = fetching.catch(() => null);
  event.waitUntil(settled); // a late response is cached for the next time
  const response = await Promise.race([settled, sleep(PATIENCE_MS)]);
  return response || (await cached(place, event.request.url)) || fetching;
}

/** For files that their name or validator identifies. @param {FetchEvent} event */
async function cacheFirst(event) {
  const place = bare(event.request.url);
  const copy = await cached(place, event.request.url);
  if (copy) {
    if (place.startsWith(PYODIDE)) event.waitUntil(revalidate());
    return copy;
  }
  const response = await fetch(event.request);
  if (response.ok) event.waitUntil(store(place, response.clone()));
  return response;
}

/** The copy, with all its headers, including those that isolate a page. For a request with a query it has
 * no URL, and so takes that of its request; otherwise it is returned unchanged, so its bytes bypass this
 * thread. @param {string} place @param {string} [url] */
async function cached(place, url = place) {
  const response = await caches.match(place, { cacheName: CACHE }).catch(() => undefined);
  return response && (response.url === url ? response : new Response(response.body, response));
}

/** Store a response, unless the copy is the same: a visit requests some sixty files that have not changed.
 * @param {string} place @param {Response} response */
async function renew(place, response) {
  const [known, etag] = [await cached(place), response.headers.get("etag")];
  if (!etag || known?.headers.get("etag") !== etag) await store(place, response);
}

/** Store a response; returns whether that worked. @param {string} place @param {Response} response @returns {Promise<boolean>} */
async function store(place, response) {
  try {
    // An index is stored after its wheel: offline, it must not name one that is missing.
    const parts = place === INDEX ? await ensurePartsCached(await response.clone().json()) : [place];
    const cache = await caches.open(CACHE);
    await cache.put(place, response);
    for (const part of parts) await dropOlder(cache, part);
    return true;
  } catch (error) {
    console.debug(`Not stored for offline use: ${place} (${error})`); // a full disk, say
    return false;
  }
}

/** @typedef {{ wheel: string, snapshot?: { file: string } | null }} Index */

/** The wheel, without which this throws, and the snapshot, which is optional.
 * @param {Index} index @returns {Promise<string[]>} */
async function ensurePartsCached(index) {
  const [wheel, ...snapshots] = partsOf(index);
  if (!(await ensureCached(wheel))) throw new Error(`without ${wheel}`);
  await Promise.all(snapshots.map(ensureCached));
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

/** Drop a wheel's other versions, of snapshots all others; never those that the stored index names: it stays
 * until everything that a new one names is stored. @param {Cache} cache @param {string} place */
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

/** Fetch what is not cached yet, usually from the browser's HTTP cache. The index is fetched again.
 * Files that the server does not have are skipped. @param {string} place @returns {Promise<boolean>} */
async function ensureCached(place) {
  if (place !== INDEX && (await cached(place))) return true;
  const response = await fetch(place, { cache: "default" }).catch(() => null);
  if (!response) return Boolean(await cached(place));
  return response.ok ? store(place, response) : response.status === 404;
}

/** @param {string[]} urls */
async function fill(urls) {
  const places = urls.map(bare).filter((url) => isOurs(url) && url !== INDEX);
  const first = [INDEX, PYODIDE_MODULE, PYODIDE_LOCK, ...new Set(places)];
  const all = await Promise.all(first.map(ensureCached));
  const then = [...(await pyodideParts()), ...(await packageFiles())];
  all.push(...(await Promise.all(then.map((name) => ensureCached(PYODIDE + name)))));
  return all.every(Boolean);
}

/** Pyodide's own files, which it names itself. */
async function pyodideParts() {
  const code = await (await cached(PYODIDE_MODULE))?.text();
  return new Set(code?.match(/\bpyodide\.asm\.(?:m?js|wasm)\b|\bpython_stdlib\.zip\b/g));
}

/** The packages that Python starts with, from Pyodide's list of them. */
async function packageFiles() {
  const lock = await cached(PYODIDE_LOCK);
  /** @type {Record<string, { file_name: string, depends: string[] }>} */
  const known = lock ? (await lock.json()).packages : {};
  const names = new Set(PYODIDE_PACKAGES);
  for (const name of names) known[name]?.depends.forEach((needed) => names.add(needed));
  return [...names].filter((name) => known[name]).map((name) => known[name].file_name);
}

/** @type {Promise<void> | null} */
let revalidating = null;

function revalidate() {
  revalidating ??= sleep(REVALIDATE_AFTER_MS)
    .then(renewPyodide)
    .catch((error) => console.debug(`Pyodide was not looked up (${error}).`))
    .finally(() => (revalidating = null));
  return revalidating;
}

/** Revalidate the cached files; those that changed are replaced together, or not at all. */
async function renewPyodide() {
  const cache = await caches.open(CACHE);
  /** @type {[string, Response][]} */
  const changed = [];
  for (const { url } of await cache.keys()) {
    if (!url.startsWith(PYODIDE)) continue;
    const etag = (await cache.match(url))?.headers.get("etag");
    const headers = etag ? { "If-None-Match": etag } : undefined;
    const response = await fetch(url, { headers, cache: etag ? "no-store" : "default" });
    if (response.ok) changed.push([url, new Response(await response.arrayBuffer(), response)]);
    else if (response.status === 404) await cache.delete(url);
    else if (response.status !== 304) throw new Error(`${response.status} for ${url}`);
  }
  for (const [url, response] of changed) await cache.put(url, response);
}

/** @param {number} ms @returns {Promise<null>} */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(null), ms));
}
