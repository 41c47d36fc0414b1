// The files of a model that a page can fetch before Python is up: those that its last load read, by the
// table that Python wrote then (py/bascule/weights/recorded.py); on a first visit those that
// wheel/index.json lists for it (first_files of py/bascule/tasks/registry.py). Neither is trusted: a
// file's name is one below the folder that the page itself asks for, and there are so many at most.

/**
 * Files that are read whole, and files that are read by parts, in the order of the reading.
 * @typedef {{ small: string[], large: string[] }} Files
 * A model as the page names it, and the folder of known models.
 * @typedef {{ model: string, models: string }} Wanted
 * `file` is "" where the address is a folder's.
 * @typedef {{ address: string, folder: string, file: string }} Place
 * @typedef {{ get(key: string): Promise<string> }} Remembered
 */

const LOADS_KEY = "loads";
const MAX_FILES = 1024;
const FILE = /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}\/)?[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;
const GGUF_FILE = /\/([A-Za-z0-9][A-Za-z0-9._-]{0,199}\.gguf)$/;

/** Where a model is; null if Python has to decide first.
 * @param {Wanted} wanted @returns {Place | null} */
export function placeOf({ model, models }) {
  const path = model.includes("/") ? model : models + model;
  if (!URL.canParse(path, location.origin)) return null;
  const { href, protocol, username, password, search, hash } = new URL(path, location.origin);
  if (!/^https?:$/.test(protocol) || username || password || search || hash) return null;
  const address = href.replace(/\/+$/, "");
  const file = GGUF_FILE.exec(address)?.[1] ?? "";
  if (!file && address.endsWith(".gguf")) return null; // Python refuses it
  return { address, file, folder: file ? address.slice(0, -file.length - 1) : address };
}

/** What the last load from that address read, and the tier that "auto" chose ("" if it was not used);
 * null where none is remembered.
 * @param {Remembered} remembered @param {string} address
 * @returns {Promise<(Files & { auto: string }) | null>} */
export async function lastLoad(remembered, address) {
  const { loads } = JSON.parse((await remembered.get(LOADS_KEY)) || "{}");
  const row = Array.isArray(loads) ? loads.find((each) => each?.address === address) : null;
  const files = soundFiles(row);
  return files && typeof row.auto === "string" ? { ...files, auto: row.auto } : null;
}

/** What a first load will most likely read, by the `ahead` of wheel/index.json.
 * @param {any} ahead @param {Wanted} wanted
 * @param {() => Promise<string[]>} listed the known files of the folder
 * @returns {Promise<Files | null>} */
export async function filesOfFirstLoad(ahead, { model }, listed) {
  if (ahead?.models && Object.hasOwn(ahead.models, model)) return soundFiles(ahead.models[model]);
  const layouts = Array.isArray(ahead?.folders) ? ahead.folders : [];
  const there = new Set(await listed());
  const fits = (/** @type {Files | null} */ files) =>
    files !== null && [...files.small, ...files.large].every((file) => there.has(file));
  return layouts.map(soundFiles).find(fits) ?? soundFiles(layouts[0]);
}

/** @param {any} files @returns {Files | null} */
function soundFiles(files) {
  const { small, large } = files ?? {};
  if (!Array.isArray(small) || !Array.isArray(large)) return null;
  const valid = [...small, ...large].every((name) => typeof name === "string" && FILE.test(name));
  return valid && small.length + large.length <= MAX_FILES ? { small, large } : null;
}
