// The page of sentences: its display and controls. All work is done by the worker behind client.js.

import { count, part, show } from "./dom.js";
import { EngineCard } from "./engine.js";
import { HeatCanvas } from "./heatcanvas.js";
import { describe, drawPairs, drawTable } from "./heatmap.js";
import { timeRemaining } from "./loading.js";
import { BasculeError } from "./protocol.js";
import { similarities, Slices } from "./similarity.js";

/** @typedef {import("./protocol.js").Embedded} Embedded */

/** With more there is no room for numbers: a canvas shows them. */
const MAX_IN_TABLE = 20;
const MAX_SENTENCES = 1000;
/** Texts of one request, so that progress can be shown between them. */
const BATCH = 64;
/** The share of computing and drawing the similarities in the progress. */
const DRAWING = 0.05;
const LEGEND = "Cosine similarity: 1 is the same meaning, 0 none in common.";

const sentences = part("sentences", HTMLTextAreaElement);
const embedButton = part("embed", HTMLButtonElement);
/** Whether to compare as soon as the model is ready. */
let queued = false;
/** What is being compared. @type {AbortController | null} */
let running = null;
/** What is shown. @type {{ texts: string[], scores: Float32Array }} */
let shown = { texts: [], scores: new Float32Array() };

const engine = new EngineCard(["sentence-encoder"], embedButton, (state, fits) => {
  embedButton.disabled = state === "error" || (state === "ready" && !fits);
  embedButton.textContent = state === "busy" ? "Cancel" : "Compare";
  part("keys", HTMLElement).hidden = state === "busy";
  if (state === "error") setQueued(false);
  if (state === "ready" && queued && fits) queueMicrotask(compare);
});
const point = (/** @type {number} */ a, /** @type {number} */ b) => {
  show("pointed", describe(shown.texts, shown.scores, a, b));
};
const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector("#map canvas"));
const heatCanvas = new HeatCanvas(canvas, part("cursor", HTMLElement), point);

/** @param {boolean} waits */
function setQueued(waits) {
  queued = waits;
  show("keys", waits ? "They are compared as soon as the model is ready." : "or press Ctrl+Enter in the text");
  part("keys", HTMLElement).classList.toggle("said", waits);
}

function pressed() {
  if (embedButton.disabled) return;
  if (engine.state === "busy") stop();
  else if (engine.state === "ready") compare();
  else setQueued(true);
}

function stop() {
  running?.abort();
  engine.client.cancel().catch(() => {});
}

async function compare() {
  setQueued(false);
  const texts = sentences.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!texts.length || texts.length > MAX_SENTENCES) {
    const what = `These are ${count(texts.length, "sentence")}; at most ${count(MAX_SENTENCES, "sentence")} are compared.`;
    engine.setState("ready", texts.length ? what : "Write a sentence first.");
    return;
  }
  running = new AbortController();
  engine.setState("busy", `Embedding ${count(texts.length, "sentence")}…`);
  try {
    await showComparison(texts, running.signal);
    engine.setState("ready", "Ready.");
    revealResults();
  } catch (error) {
    const cancelled = running.signal.aborted || (error instanceof BasculeError && error.category === "cancelled");
    if (!cancelled) engine.showError(error, error instanceof BasculeError && error.category === "input");
    else if (engine.state === "busy") engine.setState("ready", "Cancelled.");
  }
  running = null;
}

/** @param {string[]} texts @param {AbortSignal} signal */
async function showComparison(texts, signal) {
  const before = await engine.client.stats();
  const { data, rows, columns, ms, truncated } = await engine.idle.during(() => embedAll(texts, signal));
  const after = await engine.client.stats();
  const work = (/** @type {number} */ from, /** @type {number} */ share) =>
    new Slices(signal, (part) => engine.showWork(1 - DRAWING * (1 - from - share * part), "Drawing…"));
  const scores = await similarities(data, rows, columns, work(0, 0.7));
  const inTable = rows <= MAX_IN_TABLE;
  shown = { texts, scores };
  if (inTable) drawTable(part("matrix", HTMLTableElement), texts, scores, point);
  else await heatCanvas.draw(scores, rows, work(0.7, 0.3));
  drawPairs(part("pairs", HTMLOListElement), texts, scores);
  part("matrix", HTMLTableElement).hidden = !inTable;
  part("map", HTMLElement).hidden = inTable;
  show("pointed", inTable ? LEGEND : `${LEGEND} Point at the map, or move in it with the arrow keys.`);
  showCut(truncated ?? []);
  part("nothing", HTMLElement).hidden = true;
  part("found", HTMLElement).hidden = false;
  const [passes, tokens] = [after.passes - before.passes, after.tokens - before.tokens];
  const work_done = [count(rows, "sentence"), count(tokens, "token"), count(passes, "forward pass", "forward passes")];
  show("timings", `${work_done.join(", ")} in ${ms.toFixed(0)} ms`);
}

/** Embed in batches of texts of similar length, as the model itself would, with progress between them.
 * @param {string[]} texts @param {AbortSignal} signal
 * @returns {Promise<Embedded>} */
async function embedAll(texts, signal) {
  const order = texts.map((_, i) => i).sort((a, b) => texts[a].length - texts[b].length);
  const began = performance.now();
  let data = new Float32Array();
  let columns = 0;
  /** @type {number[]} */
  const truncated = [];
  for (let from = 0; from < order.length; from += BATCH) {
    const batch = order.slice(from, from + BATCH);
    const rows = await engine.client.embed(batch.map((i) => texts[i]));
    signal.throwIfAborted();
    columns = rows.columns;
    if (!data.length) data = new Float32Array(texts.length * columns);
    batch.forEach((i, row) => data.set(rows.data.subarray(row * columns, (row + 1) * columns), i * columns));
    truncated.push(...(rows.truncated ?? []).map((row) => batch[row]));
    if (order.length > BATCH) showEmbedded(Math.min(order.length, from + BATCH), order.length, began);
  }
  return { data, rows: texts.length, columns, ms: performance.now() - began, truncated };
}

/** @param {number} done @param {number} all @param {number} began */
function showEmbedded(done, all, began) {
  const fraction = (1 - DRAWING) * (done / all);
  const remaining = timeRemaining(performance.now() - began, fraction);
  engine.showWork(fraction, [`${done} of ${count(all, "sentence")}`, remaining].filter(Boolean).join(", "));
}

/** @param {number[]} truncated indices of sentences */
function showCut(truncated) {
  const loaded = engine.client.loaded;
  const maxTokens = loaded?.kind === "sentence-encoder" ? loaded.maxTokens : 0;
  const which = truncated.sort((a, b) => a - b).map((i) => i + 1).join(", ");
  const [noun, were] = truncated.length === 1 ? ["Sentence", "was"] : ["Sentences", "were"];
  show("cut", `${noun} ${which} ${were} cut to the first ${maxTokens} tokens, the most that this model reads.`);
  part("cut", HTMLElement).hidden = !truncated.length;
}

/** On a narrow screen the result is below the button. */
function revealResults() {
  const results = part("results", HTMLElement);
  const { top } = results.getBoundingClientRect();
  if (top < innerHeight / 2) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ behavior: calm ? "instant" : "smooth", block: "start" });
}

embedButton.addEventListener("click", pressed);
sentences.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && engine.state !== "busy") pressed();
});
