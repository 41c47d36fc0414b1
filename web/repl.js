// repl.html: a Python console. It sends sources to a worker one after the other, and shows text and pictures.
// repl.html?example=life is an example's own page: its source runs as soon as Python is ready.

import { workerConfig } from "./client-options.js";
import { part } from "./dom.js";
import { decodePicture } from "./picture-files.js";
import { ConsoleLog } from "./repl-log.js";
import { sendShipped } from "./shipped.js";
import { switchesOf } from "./switches.js";

/** @typedef {import("./repl-worker.js").ConsoleMessage} ConsoleMessage */
/** @typedef {"booting" | "ready" | "busy" | "error"} State */

const EXAMPLES = "examples/";
const STOP_MS = 5000;
const INTERRUPT_MS = 500;
const SIGINT = 2;
const INDENT = "    ";
/** The largest width and height of opened pictures. */
const MAX_PIXELS = 2048;

class ConsolePage {
  #source = part("source", HTMLTextAreaElement);
  #run = part("run", HTMLButtonElement);
  #stop = part("stop", HTMLButtonElement);
  #status = part("status", HTMLElement);
  #log = new ConsoleLog(part("log", HTMLElement));
  /** @type {Worker} */
  #worker;
  /** Interrupts Python between two instructions; only isolated pages may share memory, and not in
   * every browser. */
  #interrupt = "SharedArrayBuffer" in globalThis ? new Int32Array(new SharedArrayBuffer(4)) : null;
  /** @type {State} */
  #state = "booting";
  /** Sources that have run. @type {string[]} */
  #history = [];
  #at = 0;
  /** Where the shown names belong. @type {{ head: string, tail: string } | null} */
  #completing = null;
  /** Runs while Python is asked to stop. @type {number | null} */
  #patience = null;
  /** Runs until Python is interrupted; ends with what it is to interrupt. @type {number | undefined} */
  #interrupting = undefined;
  /** The source of the example that the address names, until it runs. */
  #wanted = this.#exampleOf(new URL(location.href).searchParams.get("example"));

  constructor() {
    this.#worker = this.#start();
    this.#source.addEventListener("keydown", (event) => this.#press(event));
    this.#source.addEventListener("input", () => this.#fit());
    this.#run.addEventListener("click", () => this.#submit());
    this.#stop.addEventListener("click", () => this.#end());
    part("clear", HTMLButtonElement).addEventListener("click", () => this.#log.clear());
    const examples = part("examples", HTMLSelectElement);
    examples.addEventListener("change", () => this.#paste(examples));
    const picture = part("picture", HTMLInputElement);
    picture.addEventListener("change", () => this.#open(picture.files));
    part("log", HTMLElement).addEventListener("dragover", (event) => event.preventDefault());
    part("log", HTMLElement).addEventListener("drop", (event) => {
      event.preventDefault();
      this.#open(event.dataTransfer?.files);
    });
    this.#show("booting", "Starting Python…");
  }

  #start() {
    const worker = new Worker(new URL("./repl-worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#onMessage(data);
    worker.onerror = (event) => this.#fail(event.message || "The worker could not start.");
    const switches = switchesOf(new URL(location.href).searchParams);
    const config = workerConfig({ switches }, import.meta.url);
    const { port1, port2 } = new MessageChannel();
    sendShipped(config, port1, new AbortController().signal);
    worker.postMessage({ type: "start", ...config, shipped: port2 }, [port2]);
    // A separate message: a browser may drop one with shared memory.
    if (this.#interrupt) worker.postMessage({ type: "interrupt", interrupt: this.#interrupt });
    return worker;
  }

  /** @param {ConsoleMessage} message */
  #onMessage(message) {
    if (this.#patience !== null) this.#wait(); // it answers, so it may yet stop by itself
    if (message.type === "text") this.#log.text(message.kind, message.text);
    else if (message.type === "picture") {
      const { mime, data, id } = message;
      this.#log.picture(mime, data, id, (x, y) => this.#click(id, x, y));
    } else if (message.type === "canvas") this.#attachCanvas(message);
    else if (message.type === "names") this.#complete(message.names, message.start);
    else if (message.type === "failed") this.#fail(message.what);
    else if (message.type === "entered") {
      if (message.complete) this.#submit();
      else this.#insert(`\n${indentOf(this.#source.value)}`);
    } else {
      clearTimeout(this.#patience ?? 0);
      this.#patience = null;
      this.#calm();
      if (message.type === "started") this.#begin(message.version);
      else this.#show("ready", "Ready.");
    }
  }

  /** @param {string} what */
  #fail(what) {
    this.#log.text("error", `${what}\n`);
    this.#show("error", "Python stopped. Reload the page to start it again.");
  }

  /** @param {State} state @param {string} text */
  #show(state, text) {
    this.#state = state;
    this.#status.dataset.state = state;
    this.#status.textContent = text;
    this.#run.disabled = state !== "ready";
    this.#stop.disabled = state !== "busy";
  }

  /** @param {string} version */
  async #begin(version) {
    const source = await this.#wanted;
    this.#wanted = Promise.resolve(null);
    this.#show("ready", `Python ${version} is ready.`);
    if (source) this.#execute(source.trimEnd());
  }

  #submit() {
    const source = this.#source.value.trimEnd();
    if (!source || this.#state !== "ready") return;
    this.#source.value = "";
    this.#fit();
    this.#execute(source);
  }

  /** @param {string} source */
  #execute(source) {
    if (this.#history.at(-1) !== source) this.#history.push(source);
    this.#at = this.#history.length;
    this.#log.source(source);
    this.#show("busy", "Running…");
    this.#worker.postMessage({ type: "run", source });
  }

  /** @param {number} id @param {number} x @param {number} y */
  #click(id, x, y) {
    if (this.#state !== "ready") return;
    this.#show("busy", "Computing…");
    this.#worker.postMessage({ type: "click", id, x, y });
  }

  /** A canvas in the log for what Python draws. @param {Extract<ConsoleMessage, { type: "canvas" }>} message */
  #attachCanvas(message) {
    const canvas = this.#log.canvas(message, message.clickable ? (x, y) => this.#click(message.id, x, y) : null);
    if (!canvas) return;
    const offscreen = canvas.transferControlToOffscreen();
    this.#worker.postMessage({ type: "canvas", id: message.id, canvas: offscreen }, [offscreen]);
  }

  /** A picture file as a variable. @param {FileList | null | undefined} files */
  async #open(files) {
    const file = files?.[0];
    if (!file || this.#state !== "ready") return;
    this.#show("busy", "Reading the picture…");
    try {
      const { width, height, data: pixels } = await decodePicture(file, MAX_PIXELS);
      this.#worker.postMessage({ type: "opened", width, height, pixels }, [pixels.buffer]);
    } catch (error) {
      this.#log.text("error", `${error instanceof Error ? error.message : error}\n`);
      this.#show("ready", "Ready.");
    }
  }

  /** Cancel what awaits, interrupt what computes, and terminate the worker if neither helps. */
  #end() {
    this.#worker.postMessage({ type: "cancel" });
    this.#wait();
    const interrupt = this.#interrupt;
    // An await is cancelled at once; an interrupt during that could hit any code.
    if (!interrupt) return;
    clearTimeout(this.#interrupting);
    this.#interrupting = setTimeout(() => Atomics.store(interrupt, 0, SIGINT), INTERRUPT_MS);
  }

  /** What was to be interrupted has ended: nothing else may be. */
  #calm() {
    clearTimeout(this.#interrupting);
    if (this.#interrupt) Atomics.store(this.#interrupt, 0, 0);
  }

  #wait() {
    clearTimeout(this.#patience ?? 0);
    this.#patience = setTimeout(() => {
      this.#patience = null;
      this.#worker.terminate();
      this.#log.forget();
      this.#calm();
      this.#log.text("error", "Python did not stop and is restarted: its variables are lost.\n");
      this.#show("booting", "Starting Python again…");
      this.#worker = this.#start();
    }, STOP_MS);
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const { value, selectionStart, selectionEnd } = this.#source;
    const isCollapsed = selectionStart === selectionEnd;
    const act = (/** @type {() => void} */ done) => {
      event.preventDefault();
      done();
    };
    if (event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) act(() => this.#submit());
    else if (event.key === "Enter" && !event.shiftKey && isCollapsed && selectionEnd === value.length) {
      if (this.#state === "ready") act(() => this.#worker.postMessage({ type: "enter", source: value }));
    } else if (event.key === "Tab" && !event.shiftKey && isCollapsed && this.#state === "ready") {
      const head = value.slice(0, selectionStart);
      const word = head.slice(head.lastIndexOf("\n") + 1);
      const tail = value.slice(selectionEnd);
      // At a line's start Tab indents; after Escape it leaves the field as everywhere else.
      if (!this.#source.dataset.leave) act(() => (word.trim() ? this.#requestNames(head, tail) : this.#insert(INDENT)));
    } else if (event.key === "ArrowUp" && !value.slice(0, selectionStart).includes("\n")) act(() => this.#recall(-1));
    else if (event.key === "ArrowDown" && !value.slice(selectionEnd).includes("\n")) act(() => this.#recall(1));
    if (event.key === "Escape") this.#source.dataset.leave = "yes";
    else delete this.#source.dataset.leave;
  }

  /** @param {string} head @param {string} tail */
  #requestNames(head, tail) {
    this.#completing = { head, tail };
    this.#worker.postMessage({ type: "names", source: head });
  }

  /** @param {string[]} names @param {number} start */
  #complete(names, start) {
    const { head, tail } = this.#completing ?? { head: "", tail: "" };
    if (!names.length || this.#source.value !== head + tail) return;
    const shared = names.reduce((common, name) => {
      let n = 0;
      while (n < common.length && common[n] === name[n]) n++;
      return common.slice(0, n);
    });
    if (names.length > 1) this.#log.text("names", `${names.slice(0, 60).join("   ")}\n`);
    this.#source.value = head.slice(0, start) + shared + tail;
    this.#source.selectionStart = this.#source.selectionEnd = start + shared.length;
  }

  /** An earlier or a later source. @param {number} step */
  #recall(step) {
    const at = Math.min(Math.max(this.#at + step, 0), this.#history.length);
    if (at === this.#at) return;
    this.#at = at;
    this.#source.value = this.#history[at] ?? "";
    this.#fit();
  }

  /** @param {string} text */
  #insert(text) {
    this.#source.setRangeText(text, this.#source.selectionStart, this.#source.selectionEnd, "end");
    this.#fit();
  }

  #fit() {
    this.#source.rows = Math.min(this.#source.value.split("\n").length + 1, 16);
  }

  /** @param {HTMLSelectElement} examples */
  async #paste(examples) {
    const name = examples.value;
    examples.value = "";
    const source = await this.#fetchExample(name);
    if (source === null) return;
    this.#source.value = source;
    this.#fit();
    this.#source.focus();
  }

  /** The source of one of the offered examples. @param {string | null} name without its ending */
  async #exampleOf(name) {
    if (name === null) return null;
    const offered = [...part("examples", HTMLSelectElement).options].map(({ value }) => value).filter(Boolean);
    if (offered.includes(`${name}.py`)) return this.#fetchExample(`${name}.py`);
    this.#log.text("error", `There is no example ${name}.py. There are ${offered.join(", ")}.\n`);
    return null;
  }

  /** @param {string} name of a file */
  async #fetchExample(name) {
    const response = await fetch(new URL(EXAMPLES + name, import.meta.url)).catch(() => null);
    if (response?.ok) return response.text();
    this.#log.text("error", `This server has no ${EXAMPLES}${name}.\n`);
    return null;
  }
}

/** The indentation of a new line after these. @param {string} source */
function indentOf(source) {
  const last = source.slice(source.lastIndexOf("\n") + 1);
  const indent = /^\s*/.exec(last)?.[0] ?? "";
  return last.trimEnd().endsWith(":") ? indent + INDENT : indent;
}

new ConsolePage();
