// The worker: Pyodide, the tokenizer, the device and the loader live here, so that the page itself
// stays responsive.

import { boot } from "./boot.js";
import "./bridge/importer.js";
import { makeEarly } from "./early.js";
import { faultOf } from "./protocol.js";
import { receiveShipped } from "./shipped.js";
// The imports of these, too: the browser then requests all of them at once, not level by level.
import "./ahead.js";
import "./bridge/download.js";
import "./bridge/fetcher.js";
import "./bridge/http.js";
import "./bridge/journal.js";
import "./bridge/manifest.js";
import "./bridge/pieces.js";
import "./bridge/remembered.js";
import "./bridge/shelf.js";
import "./bridge/store.js";
import "./bridge/text.js";
import "./page-fetcher.js";
import "./snapshot-steps.mjs";
import "./snapshots.js";

/** @typedef {import("./protocol.js").Request} Request */
/** @typedef {import("./protocol.js").Answer} Answer */
/** @typedef {import("./client-options.js").WorkerConfig} WorkerConfig */
/** `createdAt` is when the page created this worker, in ms since 1970; `shipped` brings what the page fetches
 * of what the site ships (shipped.js).
 * @typedef {{ type: "start", createdAt: number, shipped: MessagePort } & WorkerConfig} StartRequest */
/** @typedef {{ type: "checked", port: MessagePort }} CheckedRequest */

/** @param {Answer} answer @param {Transferable[]} [transfer] */
function post(answer, transfer = []) {
  postMessage(answer, { transfer });
}

/** @param {string} stage @param {number} done @param {number} total @param {string} unit */
function report(stage, done, total, unit) {
  post({ type: "progress", stage, done, total, unit });
}

/** Start Python and import the project's package. @param {StartRequest} config */
async function startPython(config) {
  report("python", 0, 1, "steps");
  const worker_ms = performance.timeOrigin + performance.now() - config.createdAt;
  let package_ms = 0;
  const begin = (/** @type {any} */ pyodide) => {
    report("python", 1, 1, "steps");
    report("package", 0, 1, "steps");
    const began = performance.now();
    // Counting live proxies shows leaks in the statistics, and costs time for each proxy.
    if (config.countProxies) pyodide._module.enable_pyproxy_allocation_tracing?.();
    const module = pyodide.pyimport("bascule.page.worker_browser");
    const session = module.PageSession();
    module.destroy();
    package_ms = performance.now() - began;
    return session;
  };
  const { session, ...booted } = await boot(config, begin, receiveShipped(config.shipped));
  const stages = { worker_ms, ...booted.stages, package_ms };
  post({ type: "booted", snapshot: booted.snapshot });
  report("package", 1, 1, "steps");
  return { ...booted, stages, session };
}

/** The folder of known models. */
let models = "";

/** The device and tokenizer made while Python started. @type {ReturnType<typeof makeEarly> | null} */
let early = null;

/** @type {Promise<import("./boot.js").How & { pyodide: any, session: any }> | null} */
let booted = null;

// Messages of prefetch.js about files whose version it has checked: Python need not check again.
/** @type {Map<string, import("./bridge/fetcher.js").Checked & { at: number }>} */
const checked = new Map();
Object.assign(globalThis, { basculeChecked: checked });

/** @param {Request} request */
async function answer(request) {
  if (!booted) throw new Error("The worker was not started.");
  const { pyodide, session, snapshot, compiled, ms, stages } = await booted;
  switch (request.type) {
    case "load":
      return JSON.parse(await session.load(request.model, request.tier, report));
    case "embed":
      return embeddingsOf(session.embed(JSON.stringify(request.texts)));
    case "rank":
      return JSON.parse(await session.rank(request.query, JSON.stringify(request.texts)));
    case "classify":
      return JSON.parse(await session.classify(JSON.stringify(request.texts)));
    case "chat":
    case "generate":
      return written(session, request);
    case "transcribe":
      return transcribed(session, request);
    case "pictures":
      return JSON.parse(await session.pictures(request.action, JSON.stringify(request.options), request.pixels));
    case "bench":
      return benchOf(pyodide, session, request);
    case "logits":
      return matrixOf(session.logits(JSON.stringify(request.ids)));
    case "tune":
      return JSON.parse(await session.tune(request.budgetS, report));
    case "stats":
      return {
        ...JSON.parse(session.stats()),
        ...heapStats(pyodide),
        ...(await earlyStats()),
        ...stages,
        ...{ boot_ms: ms, boot_snapshot: Number(snapshot !== ""), boot_own_snapshot: Number(snapshot === "browser") },
        boot_compiled: Number(compiled),
      };
    case "cache":
      return JSON.parse(await session.cache(request.action, JSON.stringify(request.locations)));
    case "cancel":
      return session.cancel();
    case "close":
      return session.close();
  }
}

/** Embeddings in a form that can be transferred. @param {Promise<any>} finding */
async function embeddingsOf(finding) {
  const started = performance.now();
  const answer = await finding;
  if (typeof answer === "string") return JSON.parse(answer);
  const [rows, tokens, truncated] = [answer.rows, answer.n_tokens, answer.truncated];
  const result = { ...floatsOf(rows), tokens: tokens.toJs(), truncated: truncated.toJs() };
  for (const proxy of [tokens, truncated, answer]) proxy.destroy();
  const count = result.tokens.length;
  const columns = count ? result.data.length / count : 0;
  return { ...result, rows: count, columns, ms: performance.now() - started };
}

/** A numpy matrix in a form that can be transferred. @param {Promise<any>} finding */
async function matrixOf(finding) {
  const started = performance.now();
  const answer = await finding;
  if (typeof answer === "string") return JSON.parse(answer);
  const { data, shape } = floatsOf(answer);
  const [rows, columns] = shape;
  return { data, rows, columns, ms: performance.now() - started };
}

/** A copy of Python's floats; destroys the proxy. @param {any} proxy */
function floatsOf(proxy) {
  const buffer = proxy.getBuffer("f32");
  const [data, shape] = [buffer.data.slice(), Array.from(buffer.shape)];
  buffer.release();
  proxy.destroy();
  return { data, shape };
}

/** Python writes a text and posts its pieces meanwhile.
 * @param {any} session @param {import("./protocol.js").WritingRequest} request */
async function written(session, { id, type, input, options }) {
  /** @param {string} text @param {number} tokens */
  const onPiece = (text, tokens) => post({ type: "piece", id, text, tokens });
  /** @param {string} stage @param {number} done @param {number} total @param {string} unit */
  const onProgress = (stage, done, total, unit) => post({ type: "progress", id, stage, done, total, unit });
  return JSON.parse(await session[type](JSON.stringify(input), JSON.stringify(options), onPiece, onProgress));
}

/** @param {any} session @param {import("./protocol.js").TranscribeRequest} request */
async function transcribed(session, { id, samples, rate, options }) {
  const onSegment = (/** @type {string} */ segment) => post({ type: "segment", id, segment: JSON.parse(segment) });
  /** @param {string} stage @param {number} done @param {number} total @param {string} unit */
  const onProgress = (stage, done, total, unit) => post({ type: "progress", id, stage, done, total, unit });
  return JSON.parse(await session.transcribe(samples, rate, JSON.stringify(options), onSegment, onProgress));
}

/** @param {any} pyodide @param {any} session @param {import("./protocol.js").BenchRequest} request */
async function benchOf(pyodide, session, { id, model, quick, environment }) {
  const facts = { ...environment, pyodide: { value: pyodide.version, source: "reported by Pyodide" } };
  const onTier = (/** @type {string} */ figures) => post({ type: "tier", id, figures: JSON.parse(figures) });
  /** @param {string} stage @param {number} done @param {number} total @param {string} unit */
  const onProgress = (stage, done, total, unit) => post({ type: "progress", id, stage, done, total, unit });
  return JSON.parse(await session.measure_tiers(model, quick, JSON.stringify(facts), onProgress, onTier));
}

/** Memory statistics of both languages. @param {any} pyodide */
function heapStats(pyodide) {
  const memory = /** @type {any} */ (performance).memory;
  return {
    wasm_heap_nbytes: pyodide._module.HEAP8.length,
    js_heap_nbytes: memory ? memory.usedJSHeapSize : 0,
    pyproxies: pyodide._module.pyproxy_alloc_map?.size ?? 0,
    numpy_loaded: Number("numpy" in pyodide.loadedPackages),
  };
}

async function earlyStats() {
  const opened = await early;
  if (!opened) return {};
  const { listed, made, ms, deviceMs, files, tokenizer } = opened;
  return {
    ...{ early_device: Number(deviceMs > 0), early_listed: listed, early_made: made, early_ms: ms },
    early_fetcher: Number(files.taken),
    early_tokenizer: Number(tokenizer?.taken ?? false),
  };
}

/** Bytes of a file that Python has requested meanwhile come too late: the next load looks it up again.
 * @param {import("./bridge/fetcher.js").Checked} record */
function hearChecked(record) {
  if (!record.bytes || checked.has(record.url)) checked.set(record.url, { ...record, at: performance.now() });
}

/** Drop a prefetch's results: they were for one load. */
function dropChecked() {
  for (const { url, at } of checked.values()) checked.set(url, { url, at });
}

/** @param {StartRequest} config */
function start(config) {
  models = config.models;
  booted = startPython(config);
  booted.catch(() => {}); // reported with the first request
}

addEventListener("message", async (/** @type {MessageEvent<Request | StartRequest | CheckedRequest>} */ { data: request }) => {
  if (request.type === "start") {
    start(request);
    return;
  }
  if (request.type === "checked") {
    request.port.onmessage = ({ data }) => hearChecked(data);
    return;
  }
  const { id } = request;
  if (request.type === "load") early ??= makeEarly({ ...request, models });
  try {
    const value = await answer(request);
    if (request.type === "load") dropChecked();
    if (value?.error) post({ type: "error", id, fault: value.error });
    else post({ type: "result", id, value }, value?.data ? [value.data.buffer] : []);
  } catch (error) {
    post({ type: "error", id, fault: faultOf(error) });
  }
});
