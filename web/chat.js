// The chat page: what one says, hears and presses. All work is done by the worker behind client.js.

import { EngineCard, part } from "./engine.js";
import { MessageList } from "./messages.js";
import { BasculeError } from "./protocol.js";

/** @typedef {import("./protocol.js").Message} Message */
/** @typedef {import("./protocol.js").Options} Options */
/** @typedef {import("./protocol.js").Generation} Generation */
/** @typedef {import("./messages.js").ShownMessage} ShownMessage */

const ENDINGS = {
  end: "",
  stop: "",
  length: "This is as many tokens as the settings allow.",
  context: "The context is full: a new chat has room again.",
};
const STOPPED = "Stopped.";
const NOTHING = "The model had nothing to say.";

const prompt = part("prompt", HTMLTextAreaElement);
const sendButton = part("send", HTMLButtonElement);
const settings = part("options", HTMLFormElement);
const list = new MessageList(part("log", HTMLElement), part("messages", HTMLElement), part("empty", HTMLElement));

/** What was said so far; a new one for each new chat. @type {Message[]} */
let said = [];
let busy = false;

const engine = new EngineCard("SmolLM2-135M-Instruct", "language-model", (state, fits) => {
  busy = state === "busy";
  sendButton.textContent = busy ? "Stop" : "Send";
  sendButton.disabled = !busy && (state !== "ready" || !fits);
  if (state === "ready") showMemory().catch(() => {}); // the worker may have ended meanwhile
});

async function send() {
  const text = prompt.value.trim();
  if (sendButton.disabled || busy || !text) return;
  const mine = said;
  const asked = list.add("user", text);
  const answer = list.add("assistant", "");
  const question = { role: "user", content: text };
  prompt.value = "";
  engine.setState("busy", "Reading…");
  answer.writing = true;
  const watch = new Watch();
  try {
    const system = value("system").trim();
    const before = system ? [{ role: "system", content: system }, ...mine] : mine;
    const made = await engine.idle.during(() =>
      engine.client.chat([...before, question], options(), {
        onProgress: ({ done, total }) => show("prompt-tokens", `${done} of ${total} tokens`),
        onPiece: (piece, tokens) => {
          if (!answer.text) engine.setState("busy", "Writing…");
          answer.append(piece);
          watch.show(tokens);
        },
      }),
    );
    showStats(made);
    answer.note(made.text ? ENDINGS[made.stop_reason] : NOTHING);
    mine.push(question, { role: "assistant", content: made.text });
    engine.setState("ready", "Ready.");
  } catch (error) {
    // What came before stays; else it is as if nothing had been asked, and can be asked again.
    if (answer.text) mine.push(question, { role: "assistant", content: answer.text });
    else withdraw(mine, text, [asked, answer]);
    tell(error, answer);
  }
  answer.writing = false;
  part("spoken", HTMLElement).textContent = mine === said ? answer.text : "";
}

/** @param {Message[]} mine @param {string} text @param {ShownMessage[]} shown */
function withdraw(mine, text, shown) {
  for (const each of shown) each.remove();
  if (mine === said) prompt.value = [text, prompt.value].filter(Boolean).join("\n");
}

/** @param {unknown} error @param {ShownMessage} answer */
function tell(error, answer) {
  const category = error instanceof BasculeError ? error.category : "";
  if (category === "cancelled") {
    answer.note(STOPPED);
    if (busy) engine.setState("ready", STOPPED); // else another model loads already
  } else if (error instanceof BasculeError && category === "context-length") {
    // What to try is another thing here than in a program.
    const hint = "Shorten the message, or begin a new chat.";
    engine.showError(new BasculeError({ category, what: error.what, hint }), true);
  } else {
    engine.showError(error, category === "input");
  }
}

function stop() {
  if (busy) engine.client.cancel().catch(() => {});
  prompt.focus();
}

function restart() {
  stop();
  said = [];
  list.clear();
  if (engine.state === "ready") engine.setState("ready", "Ready."); // an error was the former chat's
  for (const id of ["speed", "first", "prompt-tokens"]) show(id, "–");
}

/** @param {string} name */
function value(name) {
  const field = settings.elements.namedItem(name);
  return field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement ? field.value : "";
}

/** The settings, as Python wants them; what is empty is Python's to choose. @returns {Options} */
function options() {
  const greedy = part("greedy", HTMLInputElement).checked;
  const names = greedy ? ["max_new_tokens"] : ["max_new_tokens", "temperature", "top_p", "seed"];
  const given = names.filter((name) => value(name).trim()).map((name) => [name, Number(value(name))]);
  return { greedy, ...Object.fromEntries(given) };
}

/** Times a text while it is written. */
class Watch {
  #began = performance.now();
  #first = 0;
  #tokens = 0;

  /** @param {number} tokens so far */
  show(tokens) {
    const now = performance.now();
    if (!this.#first) {
      this.#first = now;
      this.#tokens = tokens;
      show("first", `${(now - this.#began).toFixed(0)} ms`);
    }
    const rate = (1000 * (tokens - this.#tokens)) / (now - this.#first);
    if (Number.isFinite(rate) && rate > 0) show("speed", perSecond(rate));
  }
}

/** @param {number} rate */
function perSecond(rate) {
  return `${rate.toFixed(1)} tokens/s`;
}

/** @param {Generation} made */
function showStats({ stats }) {
  if (stats.decode_tokens_per_s) show("speed", perSecond(stats.decode_tokens_per_s));
  if (stats.first_token_ms) show("first", `${stats.first_token_ms.toFixed(0)} ms`);
  show("prompt-tokens", `${stats.prompt_tokens} tokens, ${stats.reused_tokens} reused`);
}

async function showMemory() {
  const { model = "", tier = "", device = "" } = engine.client.loaded ?? {};
  show("line", [model, tier, device].join(" · "));
  const stats = await engine.client.stats();
  show("cache", megabytes(stats.cache_nbytes));
  show("gpu", megabytes(stats.gpu_nbytes));
  show("heap", megabytes(stats.wasm_heap_nbytes));
}

/** @param {number | undefined} nbytes */
function megabytes(nbytes) {
  return nbytes ? `${(nbytes / 1e6).toFixed(1)} MB` : "none";
}

/** @param {string} id @param {string} text */
function show(id, text) {
  part(id, HTMLElement).textContent = text;
}

part("composer", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (busy) stop();
  else send();
});
prompt.addEventListener("keydown", (event) => {
  // While a word is composed, Enter chooses it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && busy) stop();
});
part("new", HTMLButtonElement).addEventListener("click", restart);
settings.addEventListener("submit", (event) => event.preventDefault());
settings.addEventListener("change", () => {
  part("sampling", HTMLFieldSetElement).disabled = part("greedy", HTMLInputElement).checked;
});
engine.ready.then(() => document.activeElement === document.body && prompt.focus()).catch(() => {});
