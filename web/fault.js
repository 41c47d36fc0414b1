// The box of an error: what happened, what to try, and only those remedies that can help. Each page has
// the empty box as #error; what is in it stands here, for it is seen only once scripts run.

import { make, part, show } from "./dom.js";

/** @typedef {import("./protocol.js").Fault} Fault */
/** @typedef {{ name: string, kind: string }} ServedModel what `bascule serve` lists of each model */

/** Faults of the model or of the request: a retry would fail in the same way. */
const FINAL = new Set([
  ...["bascule", "input", "context-length", "model-not-found", "file-missing", "model-file"],
  ...["unsupported-model", "tier-unavailable", "capability-mismatch", "limit", "not-finite", "setup"],
]);
/** Faults that another model may not have. */
const OF_THE_MODEL = new Set(["model-not-found", "file-missing", "model-file", "corrupt", "unsupported-model"]);

const CONTENT = `
  <h3 id="error-what"></h3>
  <p id="error-hint"></p>
  <div id="others" class="row" hidden>
    <label for="model-choice">This server has</label>
    <select id="model-choice"></select>
    <button id="load-model" type="button">Load it</button>
  </div>
  <div class="row">
    <button id="retry" type="button">Retry</button>
    <button id="automatic" type="button">Run on the best that works</button>
  </div>
  <details>
    <summary>Details</summary>
    <p class="quiet">Kind: <code id="error-category"></code></p>
  </details>`;

export class FaultBox {
  #box = boxWith(CONTENT);
  #retry = part("retry", HTMLButtonElement);
  #automatic = part("automatic", HTMLButtonElement);
  #others = part("others", HTMLElement);
  #choice = part("model-choice", HTMLSelectElement);
  #kinds;

  /** @param {string[]} kinds of models that the page can use
   * @param {{ retry: () => void, automatic: () => void, choose: (model: string) => void }} ways out */
  constructor(kinds, { retry, automatic, choose }) {
    this.#kinds = kinds;
    this.#retry.addEventListener("click", retry);
    this.#automatic.addEventListener("click", automatic);
    part("load-model", HTMLButtonElement).addEventListener("click", () => choose(this.#choice.value));
  }

  /** @param {boolean} hidden */
  set hidden(hidden) {
    this.#box.hidden = hidden;
  }

  /** The element that gets the focus of a hidden one. */
  get home() {
    return this.#retry.hidden ? this.#box : this.#retry;
  }

  /** @param {Fault} fault @param {boolean} usable whether the model still answers */
  show({ category, what, hint }, usable) {
    const cancelled = category === "cancelled";
    this.#box.classList.toggle("bad", !cancelled);
    show("error-what", cancelled ? "Loading was cancelled." : what);
    show("error-hint", hint);
    part("error-hint", HTMLElement).hidden = false;
    show("error-category", category);
    this.#retry.hidden = usable || FINAL.has(category);
    this.#retry.textContent = cancelled ? "Load again" : "Retry";
    this.#offer(this.#automatic, !usable && category === "tier-unavailable");
    this.#others.hidden = true;
    this.#box.hidden = false;
    if (!usable && OF_THE_MODEL.has(category)) this.#offerModels(what).catch(() => {});
  }

  /** Show a remedy, in place of the hint, which is for programs.
   * @param {HTMLElement} way @param {boolean} [helps] */
  #offer(way, helps = true) {
    way.hidden = !helps;
    if (helps) part("error-hint", HTMLElement).hidden = true;
  }

  /** Let the visitor choose among the server's models, if it lists them. @param {string} what is shown */
  async #offerModels(what) {
    const answer = await fetch(new URL("models/index.json", location.href));
    if (!answer.ok) return;
    /** @type {ServedModel[]} */
    const models = (await answer.json()).models;
    const names = models.filter(({ kind }) => this.#kinds.includes(kind)).map(({ name }) => name);
    if (!names.length || part("error-what", HTMLElement).textContent !== what) return;
    this.#choice.replaceChildren(...names.map((name) => make("option", "", name)));
    this.#offer(this.#others);
  }
}

/** The page's error box, filled. @param {string} content */
function boxWith(content) {
  const box = part("error", HTMLElement);
  box.innerHTML = content;
  return box;
}
