// The engine of a page, and its display: a model loads, with progress, errors and remedies
// them; then the page asks. Both pages have the same parts, and the same window.bascule for programs.

import { showDecision } from "./decision.js";
import { megabytes, part, rescueFocus, show } from "./dom.js";
import { FaultBox } from "./fault.js";
import { IdleTuner } from "./idle.js";
import { askToPersist, CachePanel } from "./cache-panel.js";
import { LoadProgress } from "./loading.js";
import { keepOffline } from "./offline-client.js";
import { client, model, onProgress, pyodide, query, refusal } from "./page-client.js";
import { BasculeError, faultOf } from "./protocol.js";
import { unknownSwitches } from "./switches.js";
import { whyOf } from "./why.js";

/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {import("./protocol.js").Loaded} Loaded */
/** @typedef {import("./protocol.js").Message} Message */
/** @typedef {import("./protocol.js").Options} Options */
/** @typedef {import("./client.js").Listener} Listener */
/** @typedef {"booting" | "loading" | "ready" | "busy" | "error"} State */

/** Files that a page does not load itself: the other page, and the worker's. */
const OFFLINE_FILES = [
  ...["./", "page-client.js", "main.js", "heatmap.js", "heatcanvas.js", "similarity.js"],
  ...["chat.html", "chat.js", "chat.css", "conversation.js", "figures.js", "markdown.js", "messages.js"],
  ...["transcribe.html", "transcribe.js", "transcribe.css", "recording.js", "waveform.js"],
  ...["pictures.html", "pictures.js", "pictures.css", "picture-files.js", "picture-heads.js"],
  ...["vendor/marked.js", "vendor/purify.js"],
  ...["repl.html", "repl.js", "repl-log.js", "repl-worker.js", "repl.css"],
  ...["bench.html", "bench.js", "bench-table.js", "bench.css"],
  ...["worker.js", "ahead.js", "page-fetcher.js", "boot.js", "client-options.js", "early.js", "early-gpu.js", "prefetch.js", "vendor/idb.js", "vendor/hash-wasm.js", "vendor/tokenizers.js"],
  ...["snapshot-steps.mjs", "snapshot-worker.js", "shipped.js", "snapshots.js"],
  ...["canvas-read", "device", "faults", "gpu", "handles", "importer", "pipelines", "remembered", "staging", "submission", "tape", "text"].map(inBridge),
  ...["download", "fetcher", "http", "journal", "manifest", "pieces", "shelf", "store"].map(inBridge),
];

/** Showing every report would slow the load down. */
const PAINT_MS = 100;

/** @param {string} name */
function inBridge(name) {
  return `bridge/${name}.js`;
}

export class EngineCard {
  /** @type {State} */
  state = "booting";
  #status = part("status", HTMLElement);
  #bar = part("progress", HTMLProgressElement);
  #tier = part("tier-choice", HTMLSelectElement);
  #fault;
  #home;
  #loading = new LoadProgress(false);
  #booted = false;
  #model = model;
  #kinds;
  /** Problems of the address. @type {string[]} */
  #notes;
  #onState;
  client = client;
  /** Progress that is still to be shown. @type {ReturnType<typeof setTimeout> | undefined} */
  #painting;

  /** @param {Loaded["kind"][]} kinds what the page can use
   * @param {HTMLElement} home the page's main control: it gets the focus that a hidden element had
   * @param {(state: State, fits: boolean) => void} onState also gets whether the model is of that kind */
  constructor(kinds, home, onState) {
    this.#notes = unknownSwitches(query);
    for (const note of this.#notes) console.warn(`Bascule: ${note}`);
    this.#kinds = kinds;
    this.#home = home;
    this.#onState = onState;
    this.#fault = new FaultBox(kinds, {
      retry: () => this.#loadChosen().catch(() => {}),
      automatic: () => this.#choose(this.#model, "auto"),
      choose: (name) => this.#choose(name, this.#tier.value),
    });
    onProgress((progress) => this.#showProgress(progress));
    this.idle = new IdleTuner(this.client, query.get("tune") === "now" ? 0 : undefined);
    if (query.get("tune") === "off") this.idle.end();
    const wanted = query.get("tier");
    if ([...this.#tier.options].some(({ value }) => value === wanted)) this.#tier.value = wanted ?? "auto";
    this.#listen();
    this.ready = refusal ? this.#refuse(refusal) : this.#loadChosen();
    this.ready.then(askToPersist).catch(() => {});
    this.ready.catch(() => {}); // shown in the page; whoever awaits window.bascule.ready hears of it too
    this.offline = this.ready.catch(() => {}).then(() => keepOffline(pyodide, OFFLINE_FILES));
    new CachePanel(part("kept", HTMLDetailsElement), this.client);
    Object.assign(globalThis, { bascule: this.#forPrograms() });
  }

  #listen() {
    this.#tier.addEventListener("change", () => this.#loadChosen().catch(() => {}));
    part("cancel", HTMLButtonElement).addEventListener("click", () => this.client.cancel().catch(() => {}));
    // Its workers were terminated when the page was hidden (client.js).
    addEventListener("pageshow", (event) => {
      if (event.persisted) location.reload();
    });
  }

  #loadChosen() {
    return this.load(this.#model, this.#tier.value);
  }

  /** Load another model, or on another tier, and let a reload find it. @param {string} model @param {string} tier */
  #choose(model, tier) {
    const url = new URL(location.href);
    url.searchParams.set("model", model);
    url.searchParams.set("tier", tier);
    history.replaceState(null, "", url);
    this.#model = model;
    this.#tier.value = tier;
    this.#loadChosen().catch(() => {});
  }

  /** @param {BasculeError} error @returns {Promise<Loaded>} */
  async #refuse(error) {
    this.showError(error);
    throw error;
  }

  /** @param {State} state @param {string} text */
  setState(state, text) {
    clearTimeout(this.#painting);
    this.#painting = undefined;
    const focused = document.activeElement;
    this.state = state;
    this.#status.dataset.state = state;
    if (this.#status.textContent !== text) this.#status.textContent = text; // it is read out each time
    const loading = state === "booting" || state === "loading";
    part("loading", HTMLElement).hidden = !loading;
    part("cancel", HTMLElement).hidden = !loading;
    this.#fault.hidden = state !== "error";
    this.#tier.disabled = state === "busy"; // a load would end what is under way
    const { loaded } = this.client;
    this.#onState(state, loaded !== null && this.#kinds.includes(loaded.kind));
    if (state === "ready") this.#showMemory().catch(() => {}); // the worker may have ended meanwhile
    if (loading) rescueFocus(focused, part("cancel", HTMLElement));
    else if (state !== "error") rescueFocus(focused, this.#home);
  }

  /** While the page is busy: how much is done. The caller ends it. @param {number} fraction @param {string} text */
  showWork(fraction, text) {
    part("loading", HTMLElement).hidden = false;
    this.#showBar(fraction, text);
  }

  /** @param {number} fraction @param {string} text */
  #showBar(fraction, text) {
    const percent = Math.floor(100 * fraction);
    this.#bar.value = percent;
    this.#bar.setAttribute("aria-valuenow", String(percent));
    this.#bar.setAttribute("aria-valuetext", text);
    show("bytes", text);
  }

  /** @param {unknown} error @param {boolean} [usable] whether the model still answers */
  showError(error, usable = false) {
    const focused = document.activeElement;
    this.setState(usable ? "ready" : "error", usable ? "Ready." : "");
    this.#fault.show(error instanceof BasculeError ? error : faultOf(error), usable);
    rescueFocus(focused, usable ? this.#home : this.#fault.home);
  }

  /** @param {string} name @param {string} tier */
  async load(name, tier) {
    this.#loading = new LoadProgress(this.#booted);
    this.setState(this.#booted ? "loading" : "booting", this.#booted ? "Loading…" : "Starting Python…");
    this.#showBar(0, "0%");
    try {
      const loaded = await this.idle.during(() => this.client.load(name, tier));
      this.#showLoaded(loaded, tier);
      return loaded;
    } catch (error) {
      this.showError(error);
      throw error;
    }
  }

  /** @param {Loaded} loaded @param {string} wanted */
  #showLoaded(loaded, wanted) {
    const { kind, model, tier, reason, device, decision, stats, warnings } = loaded;
    part("other", HTMLElement).hidden = this.#kinds.includes(kind);
    part("other-page", HTMLAnchorElement).search = location.search;
    show("notes", [...this.#notes, ...warnings].join(" "));
    show("why", whyOf(loaded, wanted));
    show("model", model);
    show("tier", tier);
    show("adapter", device);
    show("reason", reason);
    showDecision(part("decision", HTMLElement), decision);
    show("timings", `loaded in ${(stats.load_ms / 1000).toFixed(1)} s, ${megabytes(stats.weights_nbytes)} of weights`);
    this.setState("ready", "Ready.");
  }

  /** The memory of the model and of Python. */
  async #showMemory() {
    if (!this.client.loaded) return;
    const { gpu_nbytes: gpu, wasm_heap_nbytes: heap, cache_nbytes: cache } = await this.client.stats();
    show("gpu", gpu ? megabytes(gpu) : "none");
    show("heap", megabytes(heap));
    if (cache !== undefined) show("cache", cache ? megabytes(cache) : "none");
  }

  /** @param {Progress} progress */
  #showProgress(progress) {
    const { stage } = progress;
    if (stage === "ready" || stage === "tuning") return;
    if (stage === "python") this.#booted = false;
    else if (stage !== "prefetch" && stage !== "package") this.#booted = true;
    this.#loading.add(progress);
    this.#painting ??= setTimeout(() => {
      this.setState(this.#booted ? "loading" : "booting", `${this.#loading.stage}…`);
      this.#showBar(this.#loading.fraction, this.#loading.text);
    }, PAINT_MS);
  }

  /** For programs and tests that drive this page. */
  #forPrograms() {
    const { client, idle, ready, offline } = this;
    /** @param {Message[]} messages @param {Options} [options] @param {Listener} [listener] */
    const chat = (messages, options, listener) => idle.during(() => client.chat(messages, options, listener));
    /** @param {string | number[]} prompt @param {Options} [options] @param {Listener} [listener] */
    const generate = (prompt, options, listener) =>
      idle.during(() => client.generate(prompt, options, listener));
    return {
      ready,
      offline,
      load: (/** @type {string} */ name, /** @type {string} */ tier) => this.load(name, tier),
      embed: (/** @type {string[]} */ texts) => idle.during(() => client.embed(texts)),
      rank: (/** @type {string} */ query, /** @type {string[]} */ texts) =>
        idle.during(() => client.rank(query, texts)),
      classify: (/** @type {(string | [string, string])[]} */ texts) =>
        idle.during(() => client.classify(texts)),
      /** @param {Float32Array<ArrayBuffer>} samples @param {number} rate
       * @param {import("./protocol.js").SpeechOptions} [options] @param {Listener} [listener] */
      transcribe: (samples, rate, options, listener) =>
        idle.during(() => client.transcribe(samples, rate, options, listener)),
      chat,
      generate,
      logits: (/** @type {number[]} */ ids) => idle.during(() => client.logits(ids)),
      tune: (/** @type {number} */ budgetS) => client.tune(budgetS),
      cancel: () => client.cancel(),
      stats: () => client.stats(),
      makeSnapshot: () => client.makeSnapshot(),
      cache: (/** @type {"ls" | "rm" | "verify"} */ action, /** @type {string[] | null} */ locations) =>
        client.cache(action, locations ?? null),
      close: () => client.close(),
    };
  }
}
