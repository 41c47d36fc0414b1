// The demo page: what one sees and presses. All work is done by the worker behind client.js.

import { BasculeClient } from "./client.js";
import { drawMatrix, drawPairs, similarities } from "./heatmap.js";
import { IdleTuner } from "./idle.js";
import { askToPersist, KeptPanel } from "./kept.js";
import { keepOffline } from "./offline-client.js";
import { BasculeError, faultOf } from "./protocol.js";

/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {import("./protocol.js").Loaded} Loaded */

/** @type {Record<string, string>} */
const STAGES = {
  python: "Starting Python",
  package: "Installing the package",
  config: "Reading the model's settings",
  tokenizer: "Loading the tokenizer",
  device: "Asking for a device",
  pipelines: "Compiling shaders",
  weights: "Loading the weights",
  tuning: "Measuring shaders",
  ready: "Ready",
};

/** What the worker is made of: the page itself loads none of it. */
const WORKER_FILES = [
  ...["worker", "protocol", "early", "prefetch", "vendor/idb", "vendor/hash-wasm"],
  ...["device", "gpu", "handles", "pipelines", "remembered", "staging", "submission", "tape"].map(inBridge),
  ...["download", "fetcher", "http", "journal", "manifest", "pieces", "shelf", "store"].map(inBridge),
].map((name) => `${name}.js`);

/** @param {string} name */
function inBridge(name) {
  return `bridge/${name}`;
}

const query = new URL(location.href).searchParams;
const model = query.get("model") ?? "all-MiniLM-L6-v2";

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function part(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page lacks its #${id}.`);
  return found;
}

const statusLine = part("status", HTMLElement);
const progressBar = part("progress", HTMLProgressElement);
const bytes = part("bytes", HTMLElement);
const sentences = part("sentences", HTMLTextAreaElement);
const embedButton = part("embed", HTMLButtonElement);
const tierChoice = part("tier-choice", HTMLSelectElement);

let weightsBegan = 0;
const pyodideUrl = ownUrl(query.get("pyodide") ?? "/pyodide/");
const client = new BasculeClient(pyodideUrl, showProgress, query.has("count-proxies"));

const idle = new IdleTuner(client, query.get("tune") === "now" ? 0 : undefined);
if (query.get("tune") === "off") idle.end();

/** Python itself comes from here only, whatever a link to this page says. @param {string} path */
function ownUrl(path) {
  const url = new URL(path, location.href);
  return url.origin === location.origin ? url.href : new URL("/pyodide/", location.href).href;
}

/** @param {"booting" | "loading" | "ready" | "busy" | "error"} state @param {string} text */
function setState(state, text) {
  statusLine.dataset.state = state;
  statusLine.textContent = text;
  part("loading", HTMLElement).hidden = state !== "booting" && state !== "loading";
  part("error", HTMLElement).hidden = state !== "error";
  embedButton.disabled = state !== "ready";
}

/** @param {Progress} progress */
function showProgress({ stage, done, total, unit }) {
  if (stage === "ready" || stage === "tuning") return;
  if (stage === "prefetch") {
    // The weights come while Python starts.
    weightsBegan ||= performance.now();
    progressBar.value = done / total;
    bytes.textContent = countBytes(done, total);
    return;
  }
  // The pipelines compile while the weights stream: the bar shows what has bytes to count.
  if (stage === "pipelines" && weightsBegan) return;
  setState(stage === "python" || stage === "package" ? "booting" : "loading", `${STAGES[stage]}…`);
  const share = total ? done / total : 0;
  if (stage === "weights") weightsBegan ||= performance.now();
  progressBar.value = share;
  bytes.textContent = unit === "bytes" && total ? countBytes(done, total) : "";
}

/** @param {number} done @param {number} total */
function countBytes(done, total) {
  const seconds = (performance.now() - weightsBegan) / 1000;
  const rate = seconds > 0.2 ? `, ${(done / seconds / 1e6).toFixed(0)} MB/s` : "";
  return `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB${rate}`;
}

/** @param {unknown} error */
function showError(error) {
  const fault = error instanceof BasculeError ? error : faultOf(error);
  setState("error", fault.category === "cancelled" ? "Cancelled." : "Something went wrong.");
  part("error-what", HTMLElement).textContent = fault.what;
  part("error-hint", HTMLElement).textContent = fault.hint;
  part("error-category", HTMLElement).textContent = fault.category;
}

/** @param {string} name @param {string} tier */
async function load(name, tier) {
  weightsBegan = 0;
  setState("loading", "Loading…");
  try {
    const loaded = await idle.during(() => client.load(name, tier));
    showLoaded(loaded);
    return loaded;
  } catch (error) {
    showError(error);
    throw error;
  }
}

/** @param {Loaded} loaded */
function showLoaded({ tier, reason, device, stats, warnings }) {
  part("notes", HTMLElement).textContent = warnings.join(" ");
  part("tier", HTMLElement).textContent = tier;
  part("adapter", HTMLElement).textContent = device;
  part("reason", HTMLElement).textContent = reason;
  const megabytes = (stats.weights_nbytes / 1e6).toFixed(0);
  part("timings", HTMLElement).textContent =
    `model loaded in ${stats.load_ms.toFixed(0)} ms (${megabytes} MB of weights)`;
  setState("ready", "Ready.");
}

async function compare() {
  if (embedButton.disabled) return;
  const texts = sentences.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!texts.length) {
    setState("ready", "Write a sentence first.");
    return;
  }
  setState("busy", `Embedding ${texts.length} sentences…`);
  try {
    const before = await client.stats();
    const { data, rows, columns, ms } = await idle.during(() => client.embed(texts));
    const after = await client.stats();
    const scores = similarities(data, rows, columns);
    const pointed = part("pointed", HTMLElement);
    drawMatrix(part("matrix", HTMLTableElement), texts, scores, (told) => (pointed.textContent = told));
    drawPairs(part("pairs", HTMLOListElement), texts, scores);
    part("results", HTMLElement).hidden = false;
    const passes = after.passes - before.passes;
    const tokens = after.tokens - before.tokens;
    part("timings", HTMLElement).textContent =
      `${texts.length} sentences, ${tokens} tokens, ${passes} forward ` +
      `${passes === 1 ? "pass" : "passes"} in ${ms.toFixed(0)} ms`;
    setState("ready", "Ready.");
  } catch (error) {
    showError(error);
  }
}

embedButton.addEventListener("click", compare);
sentences.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compare();
});
tierChoice.addEventListener("change", () => load(model, tierChoice.value).catch(() => {}));
part("cancel", HTMLButtonElement).addEventListener("click", () => client.cancel().catch(() => {}));
part("retry", HTMLButtonElement).addEventListener("click", () =>
  load(model, tierChoice.value).catch(() => {}),
);

// Its workers ended when the page was left (client.js).
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

const wanted = query.get("tier");
if (wanted && [...tierChoice.options].some((option) => option.value === wanted)) {
  tierChoice.value = wanted;
}
const ready = load(model, tierChoice.value);
new KeptPanel(part("kept", HTMLDetailsElement), client);
ready.then(askToPersist).catch(() => {});
ready.catch(() => {}); // shown in the page; whoever awaits window.bascule.ready hears of it too
const offline = ready.catch(() => {}).then(() => keepOffline(pyodideUrl, WORKER_FILES));

/** For programs and tests that drive this page. */
Object.assign(globalThis, {
  bascule: {
    ready,
    offline,
    load,
    embed: (/** @type {string[]} */ texts) => idle.during(() => client.embed(texts)),
    tune: (/** @type {number} */ budgetS) => client.tune(budgetS),
    cancel: () => client.cancel(),
    stats: () => client.stats(),
    cache: (/** @type {"ls" | "rm" | "verify"} */ action, /** @type {string[] | null} */ locations) =>
      client.cache(action, locations ?? null),
    close: () => client.close(),
  },
});
