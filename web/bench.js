// bench.html: a visitor's own browser, measured tier by tier. The worker does the work.

import { detailsOf, rowOf } from "./bench-table.js";
import { BasculeClient } from "./client.js";
import { make, part, rescueFocus, show } from "./dom.js";
import { BasculeError, faultOf } from "./protocol.js";
import { switchesOf, unknownSwitches } from "./switches.js";

/** @typedef {import("./protocol.js").Facts} Facts */
/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {import("./protocol.js").TierReport} TierReport */

const STARTING = "Starting Python…";
/** The share of the run until Python answers. */
const START = 0.05;
const query = new URL(location.href).searchParams;
const model = query.get("model") ?? document.documentElement.dataset.model ?? "";
const measure = part("measure", HTMLButtonElement);
const sizes = part("sizes", HTMLSelectElement);
const cancel = part("cancel", HTMLButtonElement);
const bar = part("progress", HTMLProgressElement);
const report = part("report", HTMLTextAreaElement);
const client = new BasculeClient({ switches: switchesOf(query), snapshot: query.get("snapshot") !== "off" });
/** Whether a run is in progress, which can be cancelled. */
let running = false;

/** @param {string} name @returns {HTMLElement} */
function rows(name) {
  return /** @type {HTMLElement} */ (document.querySelector(name));
}

async function start() {
  if (running) return;
  clear();
  setRunning(true, STARTING);
  showBar(0);
  try {
    const facts = { ...pageFacts(), ...(await startFacts()) };
    const quick = sizes.value === "quick";
    const result = await client.measureTiers(model, quick, facts, { onProgress: showProgress, onTier: addTier });
    showReport(result);
    setRunning(false, "Measured.");
  } catch (error) {
    showFailure(error instanceof BasculeError ? error : faultOf(error));
  }
}

function clear() {
  part("error", HTMLElement).hidden = true;
  part("report-card", HTMLElement).hidden = true;
  part("found", HTMLElement).hidden = true;
  part("nothing", HTMLElement).hidden = false;
  rows("#tiers tbody").replaceChildren();
  rows("#tier-details").replaceChildren();
  show("copied", "");
}

/** @param {boolean} on @param {string} text */
function setRunning(on, text) {
  const focused = document.activeElement;
  running = on;
  measure.disabled = sizes.disabled = on;
  part("loading", HTMLElement).hidden = !on;
  setStatus(on ? "busy" : "ready", text);
  rescueFocus(focused, on ? cancel : measure);
}

/** @param {string} state @param {string} text */
function setStatus(state, text) {
  const status = part("status", HTMLElement);
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text; // it is read out each time
}

/** @param {number} fraction */
function showBar(fraction) {
  const percent = Math.floor(100 * fraction);
  bar.value = percent;
  show("bytes", `${percent}%`);
}

/** @param {Progress} progress */
function showProgress({ stage, done, total }) {
  setStatus("busy", `${stage}…`);
  showBar(START + (1 - START) * (done / total));
}

/** @param {import("./protocol.js").TierFigures} measured */
function addTier(measured) {
  part("nothing", HTMLElement).hidden = true;
  part("found", HTMLElement).hidden = false;
  rows("#tiers tbody").append(rowOf(measured));
  if (!measured.refused) rows("#tier-details").append(detailsOf(measured));
}

/** @param {TierReport} record */
function showReport(record) {
  rows("#tiers tbody").replaceChildren(...record.tiers.map((tier) => rowOf(tier, record.slowdowns)));
  const working = record.tiers.filter(({ refused }) => !refused);
  rows("#tier-details").replaceChildren(...working.map(detailsOf));
  report.value = JSON.stringify(record, null, 2);
  part("report-card", HTMLElement).hidden = false;
}

/** @param {import("./protocol.js").Fault} fault */
function showFailure({ category, what, hint }) {
  if (category === "cancelled") return setRunning(false, "Cancelled.");
  setRunning(false, "");
  setStatus("error", "");
  show("error-what", what);
  show("error-hint", hint);
  part("error", HTMLElement).hidden = false;
}

/** The browser's facts that a page can read. @returns {Facts} */
function pageFacts() {
  const { userAgent, hardwareConcurrency } = navigator;
  const memory = /** @type {{ deviceMemory?: number }} */ (navigator).deviceMemory;
  const fact = (/** @type {string | number | boolean} */ value, /** @type {string} */ by) => ({ value, source: `reported by ${by}` });
  return {
    time: fact(new Date().toISOString(), "this browser's clock"),
    browser: fact(userAgent, "navigator.userAgent"),
    cores: fact(hardwareConcurrency, "navigator.hardwareConcurrency"),
    memory_gib:
      memory === undefined
        ? { value: null, source: "unknown: this browser has no navigator.deviceMemory" }
        : fact(memory, "navigator.deviceMemory, which rounds it"),
    isolated: fact(crossOriginIsolated, "crossOriginIsolated"),
  };
}

/** How long Python took to start, which it does here if it has not yet. @returns {Promise<Facts>} */
async function startFacts() {
  const { boot_ms: ms, boot_snapshot: snapshot } = await client.stats();
  return {
    python_start_ms: { value: ms, source: "measured" },
    python_snapshot: { value: Boolean(snapshot), source: "measured" },
  };
}

async function copy() {
  try {
    await navigator.clipboard.writeText(report.value);
    show("copied", "Copied.");
  } catch {
    report.focus();
    report.select();
    show("copied", "This browser does not let the page copy: the text is selected, copy it with the keyboard or the menu.");
  }
}

function download() {
  const link = make("a", "");
  link.href = URL.createObjectURL(new Blob([report.value], { type: "application/json" }));
  link.download = "bascule-tiers.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

show("notes", unknownSwitches(query).join(" "));
measure.addEventListener("click", start);
cancel.addEventListener("click", () => client.cancel().catch(() => {}));
part("copy", HTMLButtonElement).addEventListener("click", copy);
part("download", HTMLButtonElement).addEventListener("click", download);
