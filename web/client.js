// A model in a worker, for any page: the class of window.bascule.

import { modelAddress, workerConfig } from "./client-options.js";
import { BasculeError } from "./protocol.js";
import { sendShipped } from "./shipped.js";
import { SnapshotMaker } from "./snapshot-maker.js";

export { BasculeError, faultOf } from "./protocol.js";

/** @typedef {import("./protocol.js").Answer} Answer */
/** @typedef {import("./protocol.js").Loaded} Loaded */
/** @typedef {import("./protocol.js").Embedded} Embedded */
/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {import("./protocol.js").Options} Options */
/** @typedef {import("./protocol.js").Generation} Generation */
/**
 * Callbacks while a text is generated: pieces with the count of tokens so far, and how much of the
 * prompt is read (stage "prefill").
 * @typedef {{ onPiece?: (text: string, tokens: number) => void,
 *   onSegment?: (segment: import("./protocol.js").Segment) => void,
 *   onTier?: (figures: import("./protocol.js").TierFigures) => void,
 *   onProgress?: (progress: Progress) => void }} Listener
 * @typedef {[name: string, score: number]} Scored a picture's key, or a label
 * @typedef {{ resolve: (value: any) => void, reject: (error: Error) => void } & Listener} Waiting
 */

const HERE = import.meta.url;
const CANCEL_MS = 5000;
/** Requests that a user waits for. */
const RESULTS = ["embed", "rank", "classify", "chat", "generate", "logits", "transcribe", "pictures"];

export class BasculeClient {
  /** Started with the first request, and again after one that could not start. @type {Worker | null} */
  #worker = null;
  #booted = false;
  /** Fetches a model's files while Python starts. @type {{ worker: Worker, address: string } | null} */
  #ahead = null;
  /** Stops fetching what Python starts from. */
  #abort = new AbortController();
  #config;
  #next = 1;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  #onProgress;
  #cancelMs;
  #maker;
  /** Whether Python has started without any snapshot. */
  #plain = false;
  /** The last load's answer. @type {Loaded | null} */
  loaded = null;

  /** @param {import("./client-options.js").ClientOptions} [options] */
  constructor(options = {}) {
    this.#config = workerConfig(options, HERE);
    this.#onProgress = options.onProgress ?? (() => {});
    this.#cancelMs = options.cancelMs ?? CANCEL_MS;
    this.#maker = new SnapshotMaker(startSnapshot, this.#config);
    // A page that the browser freezes must not block other tabs by its workers' locks.
    addEventListener("pagehide", () => {
      this.#end({ category: "cancelled", what: "The page was closed.", hint: "Reload it." });
    });
  }

  #start() {
    const createdAt = performance.timeOrigin + performance.now();
    const worker = startWorker();
    worker.onmessage = ({ data }) => this.#onMessage(data);
    worker.onerror = (event) => this.#crash(event.message || "The worker could not start.");
    worker.onmessageerror = () => this.#crash("A message from the worker could not be read.");
    // The page has these sooner than a worker, which has to read its own modules first.
    const { port1, port2 } = new MessageChannel();
    sendShipped(this.#config, port1, this.#abort.signal);
    worker.postMessage({ type: "start", ...this.#config, createdAt, shipped: port2 }, [port2]);
    return worker;
  }

  /** Start Python and fetch a model's files before `load` asks for it, while the page's own scripts are still read,
   * for example. Errors are reported by `load`. @param {string} model as for `load` */
  prepare(model) {
    if (this.#worker) return;
    try {
      this.#prefetch(modelAddress(model));
    } catch (error) {
      console.debug("Bascule could not start ahead:", error);
    }
  }

  /** Load a model in place of the present one, and stop what that one does.
   * @param {string} model a known name, a URL or a path @param {string} [tier] @returns {Promise<Loaded>} */
  async load(model, tier = "auto") {
    this.loaded = null;
    const address = modelAddress(model);
    if (!this.#booted) this.#prefetch(address);
    else if (this.#waiting.size) await this.cancel();
    try {
      this.loaded = await this.#request({ type: "load", model: address, tier });
    } finally {
      this.#endPrefetch();
    }
    return /** @type {Loaded} */ (this.loaded);
  }

  /** While Python starts, a separate worker fetches the model's files. @param {string} address */
  #prefetch(address) {
    this.#worker ??= this.#start(); // the one that takes longer
    if (this.#ahead?.address === address) return;
    this.#endPrefetch();
    const worker = startPrefetch();
    this.#ahead = { worker, address };
    worker.onmessage = ({ data: { done, total } }) => {
      if (this.#ahead?.worker === worker) this.#onProgress({ stage: "prefetch", done, total, unit: "bytes" });
    };
    worker.onerror = (event) => event.preventDefault(); // Python fetches all that is missing
    const { models, wheel } = this.#config;
    // A separate port buffers messages until the other side listens.
    const { port1, port2 } = new MessageChannel();
    worker.postMessage({ model: address, models, wheel, checked: port1 }, [port1]);
    this.#worker.postMessage({ type: "checked", port: port2 }, [port2]);
  }

  #endPrefetch() {
    this.#ahead?.worker.terminate();
    this.#ahead = null; // what it has sent already is of the past
  }

  /** @param {string[]} texts @returns {Promise<Embedded & { tier: string }>} */
  async embed(texts) {
    const answer = await this.#request({ type: "embed", texts });
    return { ...answer, tier: this.loaded?.tier ?? "" };
  }

  /** How well each text answers a query, by a cross-encoder; in the order given.
   * @param {string} query @param {string[]} texts @returns {Promise<import("./protocol.js").Ranking>} */
  rank(query, texts) {
    return this.#request({ type: "rank", query, texts });
  }

  /** The labels of texts, or of pairs of texts, with their probabilities.
   * @param {(string | [string, string])[]} texts
   * @returns {Promise<import("./protocol.js").Classification[]>} */
  classify(texts) {
    return this.#request({ type: "classify", texts });
  }

  /** Answer a conversation. A concurrent request waits for its turn.
   * @param {import("./protocol.js").Message[]} messages @param {Options} [options]
   * @param {Listener} [listener] @returns {Promise<Generation>} */
  chat(messages, options = {}, listener = {}) {
    return this.#request({ type: "chat", input: messages, options }, listener);
  }

  /** Continue a text, or token ids; else as `chat`. @param {string | number[]} prompt
   * @param {Options} [options] @param {Listener} [listener] @returns {Promise<Generation>} */
  generate(prompt, options = {}, listener = {}) {
    return this.#request({ type: "generate", input: prompt, options }, listener);
  }

  /** The logits after each of these tokens, a row each. @param {number[]} ids
   * @returns {Promise<Embedded>} */
  logits(ids) {
    return this.#request({ type: "logits", ids });
  }

  /** The text of a recording, by a speech model; the listener gets segments as they arrive.
   * @param {Float32Array<ArrayBuffer>} samples one channel, which the worker gets a copy of
   * @param {number} rate samples a second @param {import("./protocol.js").SpeechOptions} [options]
   * @param {Listener} [listener] @returns {Promise<import("./protocol.js").Transcription>} */
  transcribe(samples, rate, options = {}, listener = {}) {
    return this.#request({ type: "transcribe", samples, rate, options }, listener);
  }

  /** Add a picture, under a key, to those that this model has embedded: its most probable labels where it has
   * labels of its own. @param {string} key @param {ImageData} picture @returns {Promise<Scored[]>} */
  addPicture(key, { data, width, height }) {
    const pixels = /** @type {Uint8ClampedArray<ArrayBuffer>} */ (data);
    return this.#request({ type: "pictures", action: "add", options: { key, width, height }, pixels });
  }

  /** All pictures by their similarity to a text, or to one of them (`like`, its key), most similar first.
   * @param {{ text: string } | { like: string }} query @returns {Promise<Scored[]>} */
  searchPictures(query) {
    const [action, options] =
      "like" in query ? [/** @type {const} */ ("like"), { key: query.like }] : [/** @type {const} */ ("search"), query];
    return this.#request({ type: "pictures", action, options, pixels: null });
  }

  /** The probability of each label for a picture; a label replaces "{}" in the template.
   * @param {string} key @param {string[]} labels @param {string} [template] @returns {Promise<Scored[]>} */
  classifyPicture(key, labels, template = "a photo of a {}") {
    return this.#request({ type: "pictures", action: "classify", options: { key, labels, template }, pixels: null });
  }

  /** Remove pictures; returns how many. @param {string[]} keys @returns {Promise<number>} */
  removePictures(keys) {
    return this.#request({ type: "pictures", action: "remove", options: { keys }, pixels: null });
  }

  /** Measure each tier of this browser with a sentence encoder; the listener gets each tier's figures. A
   * model that is loaded is closed. @param {string} model @param {boolean} quick small sizes and few runs
   * @param {import("./protocol.js").Facts} environment the page's own facts, for the report
   * @param {Listener} [listener] @returns {Promise<import("./protocol.js").TierReport>} */
  measureTiers(model, quick, environment, listener = {}) {
    this.loaded = null;
    return this.#request({ type: "bench", model: modelAddress(model), quick, environment }, listener);
  }

  /** Measure which shaders are fastest here for the loaded model. @param {number} budgetS
   * @returns {Promise<import("./protocol.js").Tuned>} */
  tune(budgetS) {
    return this.#request({ type: "tune", budgetS });
  }

  /** @returns {Promise<Record<string, number>>} */
  async stats() {
    return { ...(await this.#request({ type: "stats" })), ...this.#maker.stats };
  }

  /** Make the memory snapshot from which Python starts at the next visit, now instead of a while after the
   * first result. It is tried once a page.
   * @returns {Promise<string>} "made", or the reason why not: the site ships one, storage is full, ... */
  async makeSnapshot() {
    if (!this.#config.snapshot) return "snapshots are switched off";
    if (!this.#plain) return "Python has not started without a snapshot";
    return this.#maker.make(() => this.#hasNumpy());
  }

  /** Whether a snapshot is being made, which distorts measurements. */
  get makesSnapshot() {
    return this.#maker.busy;
  }

  async #hasNumpy() {
    return Boolean((await this.stats()).numpy_loaded);
  }

  #scheduleSnapshot() {
    if (this.#config.snapshot && this.#plain) {
      this.#maker.schedule(() => !this.#waiting.size, () => this.#hasNumpy());
    }
  }

  /** Stop everything that runs or waits. If Python does not answer, as while it starts or in an endless
   * loop, its worker is terminated, and the next request starts another.
   * @returns {Promise<void>} */
  async cancel() {
    const worker = this.#worker;
    if (!this.#booted) {
      this.#end({ category: "cancelled", what: "It was cancelled.", hint: "" });
      return;
    }
    const answered = this.#request({ type: "cancel" }).then(() => true);
    if ((await Promise.race([answered, sleep(this.#cancelMs)])) || this.#worker !== worker) return;
    const what = `It was cancelled; Python did not respond for ${this.#cancelMs / 1000} s and was terminated.`;
    this.#end({ category: "cancelled", what, hint: "Load the model again." });
  }

  /** The cache of models in this browser (py/bascule/cache.py).
   * @param {"ls" | "rm" | "verify"} action @param {string[] | null} locations all, if null
   * @returns {Promise<any>} */
  cache(action, locations) {
    return this.#request({ type: "cache", action, locations });
  }

  /** @returns {Promise<void>} */
  close() {
    return this.#request({ type: "close" });
  }

  /** @param {{ type: string, [detail: string]: unknown }} request @param {Listener} [listener] @returns {Promise<any>} */
  async #request(request, listener) {
    const id = this.#next++;
    const answer = await new Promise((resolve, reject) => {
      this.#waiting.set(id, { ...listener, resolve, reject });
      this.#worker ??= this.#start();
      this.#worker.postMessage({ id, ...request });
    });
    if (RESULTS.includes(request.type)) this.#scheduleSnapshot();
    return answer;
  }

  /** @param {Answer} answer */
  #onMessage(answer) {
    if (answer.type === "piece") {
      this.#waiting.get(answer.id)?.onPiece?.(answer.text, answer.tokens);
      return;
    }
    if (answer.type === "segment") {
      this.#waiting.get(answer.id)?.onSegment?.(answer.segment);
      return;
    }
    if (answer.type === "tier") {
      this.#waiting.get(answer.id)?.onTier?.(answer.figures);
      return;
    }
    if (answer.type === "progress" && answer.id !== undefined) {
      this.#waiting.get(answer.id)?.onProgress?.(answer);
      return;
    }
    if (answer.type === "progress") {
      this.#booted ||= answer.stage === "package" && answer.done === answer.total;
      this.#onProgress(answer);
      return;
    }
    if (answer.type === "booted") {
      this.#plain = answer.snapshot === "";
      return;
    }
    if (answer.type === "error" && !this.#booted) {
      this.#end(answer.fault);
      return;
    }
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.type === "error") waiting?.reject(new BasculeError(answer.fault));
    else waiting?.resolve(answer.value);
  }

  /** @param {string} what */
  #crash(what) {
    const hint = isForeign()
      ? `${new URL(HERE).origin} must allow ${location.origin} by Access-Control-Allow-Origin (bascule serve --cors).`
      : "Try again; the browser's console may say more.";
    this.#end({ category: "worker", what, hint });
  }

  /** Terminate a worker that does not answer; the next request starts a new one.
   * @param {import("./protocol.js").Fault} fault */
  #end(fault) {
    this.#worker?.terminate();
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#endPrefetch();
    this.#maker.end();
    this.#worker = null;
    this.#plain = false;
    this.#booted = false;
    this.loaded = null;
    for (const { reject } of this.#waiting.values()) reject(new BasculeError(fault));
    this.#waiting.clear();
  }
}

// Bundlers find a worker by `new Worker(new URL("...", import.meta.url), ...)`, written out like this.

function startWorker() {
  if (isForeign()) return startForeign("worker.js");
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}

function startPrefetch() {
  if (isForeign()) return startForeign("prefetch.js");
  return new Worker(new URL("./prefetch.js", import.meta.url), { type: "module" });
}

function startSnapshot() {
  if (isForeign()) return startForeign("snapshot-worker.js");
  return new Worker(new URL("./snapshot-worker.js", import.meta.url), { type: "module" });
}

/** Whether this file has another origin: browsers start no workers from there. */
function isForeign() {
  return new URL(HERE).origin !== location.origin;
}

/** A worker of the page's own origin that imports a script of another one, which must allow it by CORS.
 * @param {string} file */
function startForeign(file) {
  const code = `import ${JSON.stringify(new URL(file, HERE).href)};`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}

/** @param {number} ms @returns {Promise<false>} */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(false), ms));
}
