// The engine of a page, and the card that tells of it: a model loads, with progress, errors and a retry;
// then the page asks. Both pages have the same card, and the same window.bascule for programs.

import { BasculeClient } from "./client.js";
import { showDecision } from "./decision.js";
import { IdleTuner } from "./idle.js";
import { askToPersist, KeptPanel } from "./kept.js";
import { keepOffline } from "./offline-client.js";
import { BasculeError, faultOf, switchesOf } from "./protocol.js";

/** @typedef {import("./protocol.js").Progress} Progress */
/** @typedef {import("./protocol.js").Loaded} Loaded */
/** @typedef {import("./protocol.js").Message} Message */
/** @typedef {import("./protocol.js").Options} Options */
/** @typedef {import("./client.js").Listener} Listener */
/** @typedef {"booting" | "loading" | "ready" | "busy" | "error"} State */

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

/** What a page does not load itself: the other page, and what the worker is made of. */
const OFFLINE_FILES = [
  ...["./", "main.js", "heatmap.js", "chat.html", "chat.js", "messages.js", "chat.css"],
  ...["worker.js", "boot.js", "client-options.js", "early.js", "prefetch.js", "vendor/idb.js", "vendor/hash-wasm.js"],
  ...["device", "faults", "gpu", "handles", "importer", "pipelines", "remembered", "staging", "submission", "tape"].map(inBridge),
  ...["download", "fetcher", "http", "journal", "manifest", "pieces", "shelf", "store"].map(inBridge),
];

/** @param {string} name */
function inBridge(name) {
  return `bridge/${name}.js`;
}

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
export function part(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page lacks its #${id}.`);
  return found;
}

/** Python comes from folders of that name beside this page only, whatever a link to the page says: any
 * other folder of the origin, a model's for one, may hold somebody else's code.
 * @param {string | null} asked @returns {string | null} null where that is refused */
function ownPyodide(asked) {
  const path = /^(?:\/|\.\/)?(pyodide[\w.-]*)\/?$/.exec(asked ?? "pyodide/");
  return path && new URL(`${path[1]}/`, import.meta.url).href;
}

/** @param {string | null} asked */
function refusedPyodide(asked) {
  const what = `This page does not start Python from ${String(asked).slice(0, 200)}.`;
  const hint = "?pyodide= names a folder beside the page, pyodide/ for example.";
  return new BasculeError({ category: "input", what, hint });
}

export class EngineCard {
  /** @type {State} */
  state = "booting";
  #status = part("status", HTMLElement);
  #bar = part("progress", HTMLProgressElement);
  #bytes = part("bytes", HTMLElement);
  #tier = part("tier-choice", HTMLSelectElement);
  #weightsBegan = 0;
  #model;
  #kind;
  #onState;

  /** @param {string} model the one to load where the page's address names none
   * @param {Loaded["kind"]} kind what the page can use
   * @param {(state: State, fits: boolean) => void} onState told, too, whether the model is of that kind */
  constructor(model, kind, onState) {
    const query = new URL(location.href).searchParams;
    this.#model = query.get("model") ?? model;
    this.#kind = kind;
    this.#onState = onState;
    const asked = query.get("pyodide");
    const own = ownPyodide(asked);
    const pyodide = own ?? new URL("pyodide/", import.meta.url).href;
    const hear = (/** @type {Progress} */ progress) => this.#showProgress(progress);
    this.client = new BasculeClient({
      pyodide,
      onProgress: hear,
      countProxies: query.has("count-proxies"),
      switches: switchesOf(query),
    });
    this.idle = new IdleTuner(this.client, query.get("tune") === "now" ? 0 : undefined);
    if (query.get("tune") === "off") this.idle.end();
    const wanted = query.get("tier");
    if ([...this.#tier.options].some(({ value }) => value === wanted)) this.#tier.value = wanted ?? "auto";
    this.#listen();
    this.ready = own ? this.#loadChosen() : this.#refuse(refusedPyodide(asked));
    this.ready.then(askToPersist).catch(() => {});
    this.ready.catch(() => {}); // shown in the page; whoever awaits window.bascule.ready hears of it too
    this.offline = this.ready.catch(() => {}).then(() => keepOffline(pyodide, OFFLINE_FILES));
    new KeptPanel(part("kept", HTMLDetailsElement), this.client);
    Object.assign(globalThis, { bascule: this.#forPrograms() });
  }

  #listen() {
    this.#tier.addEventListener("change", () => this.#loadChosen().catch(() => {}));
    part("cancel", HTMLButtonElement).addEventListener("click", () => this.client.cancel().catch(() => {}));
    part("retry", HTMLButtonElement).addEventListener("click", () => this.#loadChosen().catch(() => {}));
    // Its workers ended when the page was left (client.js).
    addEventListener("pageshow", (event) => {
      if (event.persisted) location.reload();
    });
  }

  #loadChosen() {
    return this.load(this.#model, this.#tier.value);
  }

  /** @param {BasculeError} error @returns {Promise<Loaded>} */
  async #refuse(error) {
    this.showError(error);
    throw error;
  }

  /** @param {State} state @param {string} text */
  setState(state, text) {
    this.state = state;
    this.#status.dataset.state = state;
    this.#status.textContent = text;
    part("loading", HTMLElement).hidden = state !== "booting" && state !== "loading";
    part("error", HTMLElement).hidden = state !== "error";
    this.#onState(state, this.client.loaded?.kind === this.#kind);
  }

  /** @param {unknown} error @param {boolean} [usable] whether the model still answers */
  showError(error, usable = false) {
    const fault = error instanceof BasculeError ? error : faultOf(error);
    const text = fault.category === "cancelled" ? "Cancelled." : "Something went wrong.";
    this.setState(usable ? "ready" : "error", text);
    part("error", HTMLElement).hidden = false;
    part("retry", HTMLElement).hidden = usable;
    part("error-what", HTMLElement).textContent = fault.what;
    part("error-hint", HTMLElement).textContent = fault.hint;
    part("error-category", HTMLElement).textContent = fault.category;
  }

  /** @param {string} name @param {string} tier */
  async load(name, tier) {
    this.#weightsBegan = 0;
    this.setState("loading", "Loading…");
    try {
      const loaded = await this.idle.during(() => this.client.load(name, tier));
      this.#showLoaded(loaded);
      return loaded;
    } catch (error) {
      this.showError(error);
      throw error;
    }
  }

  /** @param {Loaded} loaded */
  #showLoaded({ kind, model, tier, reason, device, decision, stats, warnings }) {
    part("other", HTMLElement).hidden = kind === this.#kind;
    part("other-page", HTMLAnchorElement).search = location.search;
    part("notes", HTMLElement).textContent = warnings.join(" ");
    part("model", HTMLElement).textContent = model;
    part("tier", HTMLElement).textContent = tier;
    part("adapter", HTMLElement).textContent = device;
    part("reason", HTMLElement).textContent = reason;
    showDecision(part("decision", HTMLElement), decision);
    const megabytes = (stats.weights_nbytes / 1e6).toFixed(0);
    part("timings", HTMLElement).textContent =
      `model loaded in ${stats.load_ms.toFixed(0)} ms (${megabytes} MB of weights)`;
    this.setState("ready", "Ready.");
  }

  /** @param {Progress} progress */
  #showProgress({ stage, done, total, unit }) {
    if (stage === "ready" || stage === "tuning") return;
    if (stage === "prefetch") {
      // The weights come while Python starts.
      this.#weightsBegan ||= performance.now();
      this.#bar.value = done / total;
      this.#bytes.textContent = this.#countBytes(done, total);
      return;
    }
    // The pipelines compile while the weights stream: the bar shows what has bytes to count.
    if (stage === "pipelines" && this.#weightsBegan) return;
    this.setState(stage === "python" || stage === "package" ? "booting" : "loading", `${STAGES[stage]}…`);
    if (stage === "weights") this.#weightsBegan ||= performance.now();
    this.#bar.value = total ? done / total : 0;
    this.#bytes.textContent = unit === "bytes" && total ? this.#countBytes(done, total) : "";
  }

  /** @param {number} done @param {number} total */
  #countBytes(done, total) {
    const seconds = (performance.now() - this.#weightsBegan) / 1000;
    const rate = seconds > 0.2 ? `, ${(done / seconds / 1e6).toFixed(0)} MB/s` : "";
    return `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB${rate}`;
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
      chat,
      generate,
      logits: (/** @type {number[]} */ ids) => idle.during(() => client.logits(ids)),
      tune: (/** @type {number} */ budgetS) => client.tune(budgetS),
      cancel: () => client.cancel(),
      stats: () => client.stats(),
      cache: (/** @type {"ls" | "rm" | "verify"} */ action, /** @type {string[] | null} */ locations) =>
        client.cache(action, locations ?? null),
      close: () => client.close(),
    };
  }
}
