// What a second visit can do before Python is up: open the device with the descriptor that Python used last
// time, make every pipeline that the model needed then, its tokenizer, and what reads its files. Python takes
// these over when it needs them (gpu_browser.py, tokenizer_browser.py, source_browser.py); if anything
// is missing or has changed, it makes its own.

import { lastLoad, placeOf } from "./ahead.js";
import { openRemembered } from "./bridge/remembered.js";
import { createChecked } from "./bridge/text.js";
import { createPageFetcher, idb } from "./page-fetcher.js";

/**
 * `made` pipelines of `listed` are compiled after `ms`; the device is ready after `deviceMs`;
 * Python has taken the store's fetcher and the tokenizer, or not.
 * @typedef {{ listed: number, made: number, ms: number, deviceMs: number,
 *   files: { taken: boolean }, tokenizer: { taken: boolean } | null }} Early
 * @typedef {import("./bridge/pipelines.js").Recipe & { outcome: string }} Listed
 * @typedef {import("./bridge/gpu.js").Gpu} Gpu
 * @typedef {import("./bridge/remembered.js").Remembered} Remembered
 * @typedef {{ model: string, models: string, tier: string }} Wanted
 */

// Other tiers need no device, or one with other limits.
const EARLY_TIERS = ["auto", "webgpu"];
const NONE = { listed: 0, made: 0, ms: 0, deviceMs: 0 };

/**
 * Start at once, beside Pyodide's boot; call it once per worker, with the model and the tier as the page
 * will load it, and the folder of known models. Never rejects. What it resolves to is for statistics:
 * nothing needs to wait for it.
 * @param {Wanted} wanted @returns {Promise<Early>}
 */
export async function makeEarly(wanted) {
  // Every visit needs it. If it fails here, Python fails too, and reports it.
  const files = { fetcher: createPageFetcher(), taken: false };
  files.fetcher.catch(() => {});
  Object.assign(globalThis, { basculeEarlyFetcher: files });
  /** @type {Remembered | null} */
  let remembered = null;
  try {
    remembered = await openRemembered(await idb());
    const making = makeTokenizer(remembered, wanted);
    const device = await makeDevice(remembered, wanted);
    return { ...device, files, tokenizer: await making };
  } catch (error) {
    console.warn("Bascule could not prepare this page early:", error);
    return { ...NONE, files, tokenizer: null };
  } finally {
    remembered?.close();
  }
}

/** @returns {Promise<any>} */
function tokenizers() {
  return import(/* @vite-ignore */ new URL("./vendor/tokenizers.js", import.meta.url).href);
}

/** The model's tokenizer, if it was remembered. @param {Remembered} remembered @param {Wanted} wanted */
async function makeTokenizer(remembered, wanted) {
  try {
    const place = placeOf(wanted);
    const early = place && (await createChecked(tokenizers, remembered, place.folder));
    if (!early || Object.hasOwn(globalThis, "basculeEarlyTokenizer")) return null; // Python has its own
    Object.assign(globalThis, { basculeEarlyTokenizer: early });
    return early;
  } catch (error) {
    console.debug("Bascule could not make a tokenizer early:", error);
    return null;
  }
}

/** Opens nothing for a tier that needs no such device. @param {Remembered} remembered
 * @param {Wanted} wanted */
async function makeDevice(remembered, wanted) {
  const began = performance.now();
  if (!EARLY_TIERS.includes(wanted.tier)) return NONE;
  const place = wanted.tier === "auto" ? placeOf(wanted) : null;
  const taken = place && (await lastLoad(remembered, place.address))?.auto;
  if (taken && taken !== "webgpu") return NONE;
  const request = JSON.parse((await remembered.get("request")) || "null");
  if (!Array.isArray(request?.limits) || !Array.isArray(request.features)) return NONE;
  // Python was faster and has a device already (a slow database).
  if (Object.hasOwn(globalThis, "basculeEarly")) return NONE;
  const opening = openGpu(request);
  // Set before the first pipeline: Python may ask for the device while they are being made.
  Object.assign(globalThis, { basculeEarly: opening });
  const opened = await opening;
  const deviceMs = performance.now() - began;
  if (!opened) return NONE;
  const recipes = await recipesFor(remembered, opened, request.version, wanted.model);
  const made = await opened.makeAhead(recipes);
  return { listed: recipes.length, made, ms: performance.now() - began, deviceMs };
}

/** Null if there is no device. @param {{ limits: unknown[], features: unknown[] }} request
 * @returns {Promise<Gpu | null>} */
async function openGpu(request) {
  try {
    return await (await import("./early-gpu.js")).openGpu(request);
  } catch {
    return null; // Python asks again and says why
  }
}

/** @param {Remembered} remembered @param {Gpu} opened
 * @param {string} version @param {string} model @returns {Promise<Listed[]>} */
async function recipesFor(remembered, opened, version, model) {
  const machine = `${version} ${JSON.parse(opened.info).identity}`;
  const models = JSON.parse((await remembered.get(`models ${machine}`)) || "{}");
  const digest = models.names?.[model];
  if (typeof digest !== "string") return [];
  const record = JSON.parse((await remembered.get(`pipelines ${machine} ${digest}`)) || "{}");
  return Array.isArray(record.pipelines) ? record.pipelines.filter(isRecipe) : [];
}

/** The pipelines of the last visit: those that failed would fail again. @param {any} listed */
function isRecipe(listed) {
  return (
    listed?.outcome === "made" &&
    [listed.wgsl, listed.bindings, listed.label].every((text) => typeof text === "string") &&
    /^[urw-]{1,16}$/.test(listed.bindings) &&
    listed.constants !== null &&
    typeof listed.constants === "object"
  );
}
