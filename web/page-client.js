// The client of a page with a model. The page's head asks for this file by itself: Python starts and the model's
// files are fetched while the browser still reads the modules that the page shows itself with.

import { BasculeClient } from "./client.js";
import { BasculeError } from "./protocol.js";
import { switchesOf } from "./switches.js";

/** @typedef {import("./protocol.js").Progress} Progress */

/** The query of the page's address. */
export const query = new URL(location.href).searchParams;
/** The model of the page's address, or else of its data-model; "" for none. */
export const model = query.get("model") ?? document.documentElement.dataset.model ?? "";

const folder = query.get("pyodide");
const own = ownPyodide(folder);
export const pyodide = own ?? new URL("pyodide/", import.meta.url).href;
/** Why this page loads nothing. @type {BasculeError | null} */
export const refusal = own ? (model ? null : missingModel()) : refusedPyodide(folder);

/** Until the page shows progress. @type {(progress: Progress) => void} */
let listener = () => {};

export const client = new BasculeClient({
  pyodide,
  onProgress: (progress) => listener(progress),
  countProxies: query.has("count-proxies"),
  snapshot: query.get("snapshot") !== "off",
  switches: switchesOf(query),
});
if (!refusal) client.prepare(model);

/** @param {(progress: Progress) => void} hear */
export function onProgress(hear) {
  listener = hear;
}

/** Python is loaded only from folders of that name beside this page, whatever a link to the page says: any
 * other folder of the origin, such as a model's, may contain somebody else's code.
 * @param {string | null} folder @returns {string | null} null where that is refused */
function ownPyodide(folder) {
  const path = /^(?:\/|\.\/)?(pyodide[\w.-]*)\/?$/.exec(folder ?? "pyodide/");
  return path && new URL(`${path[1]}/`, import.meta.url).href;
}

/** @param {string | null} folder */
function refusedPyodide(folder) {
  const what = `This page does not start Python from ${String(folder).slice(0, 200)}.`;
  const hint = "?pyodide= names a folder beside the page, pyodide/ for example.";
  return new BasculeError({ category: "input", what, hint });
}

/** For a page without a model of its own. */
function missingModel() {
  const what = "This page needs a model.";
  return new BasculeError({ category: "input", what, hint: "Name its folder, or its URL, beside Model." });
}
