// The chat page: prompts, answers and buttons. All work is done by the worker behind client.js.

import { Conversation, download, draft } from "./conversation.js";
import { part, show } from "./dom.js";
import { EngineCard } from "./engine.js";
import { clearFigures, showStats, Watch } from "./figures.js";
import { loadMarkdown } from "./markdown.js";
import { MessageList } from "./messages.js";
import { BasculeError } from "./protocol.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./protocol.js").Options} Options */
/** @typedef {import("./messages.js").ShownMessage} ShownMessage */

const ENDINGS = {
  end: "",
  stop: "",
  length: "The answer reached the maximum number of tokens in the settings.",
  context: "The context is full: begin a new chat.",
};
const STOPPED = "Stopped.";
const NOTHING = "The model returned an empty answer.";
const QUEUED = "Your message is sent as soon as the model is ready.";

const prompt = part("prompt", HTMLTextAreaElement);
const sendButton = part("send", HTMLButtonElement);
const settings = part("options", HTMLFormElement);
const list = new MessageList(part("log", HTMLElement), part("messages", HTMLElement), part("empty", HTMLElement), {
  copy: (text) => copy(text),
  again: () => repeat(),
  edit: () => edit(),
});

/** The messages so far; a new one for each new chat. */
let talk = Conversation.restored();
let busy = false;
/** Whether to send as soon as the model is ready. */
let queued = false;
/** Whether the message being written replaces the last one. */
let editing = false;

const engine = new EngineCard(["language-model"], prompt, (state, fits) => {
  busy = state === "busy";
  sendButton.textContent = busy ? "Stop" : "Send";
  sendButton.disabled = state === "error" || (state === "ready" && !fits);
  if (sendButton.disabled && queued) setQueued(false, "Your message was not sent.");
  if (state === "ready" && queued) queueMicrotask(send);
});

/** @param {boolean} waits @param {string} [text] its status text */
function setQueued(waits, text = waits ? QUEUED : "") {
  queued = waits;
  show("queued", text);
}

/** @param {boolean} changing */
function setEditing(changing) {
  editing = changing;
  part("editing", HTMLElement).hidden = !changing;
}

function send() {
  const text = prompt.value.trim();
  setQueued(false);
  if (sendButton.disabled || busy || !text) return;
  if (engine.state !== "ready") {
    setQueued(true);
    return;
  }
  const replaced = editing ? talk.takeLast() : [];
  setEditing(false);
  prompt.value = "";
  ask(text, replaced);
}

function repeat() {
  if (engine.state !== "ready") return;
  const replaced = talk.takeLast();
  sendButton.focus(); // the button that was pressed goes
  ask(replaced[0].content, replaced);
}

function edit() {
  if (engine.state !== "ready") return;
  setEditing(true);
  prompt.value = talk.messages.at(-2)?.content ?? "";
  prompt.focus();
}

/** @param {string} text @param {Turn[]} replaced the messages that this question replaces */
async function ask(text, replaced) {
  const conversation = talk;
  list.removeLast(replaced.length);
  list.withdrawActions();
  list.add("user", text);
  const answer = list.add("assistant", "");
  const question = /** @type {Turn} */ ({ role: "user", content: text });
  draft.set(text); // restored by a reload
  engine.setState("busy", "Reading…");
  const watch = new Watch();
  try {
    const system = value("system").trim();
    const before = system ? [{ role: "system", content: system }, ...conversation.messages] : conversation.messages;
    const result = await engine.idle.during(() =>
      engine.client.chat([...before, question], options(), {
        onProgress: ({ done, total }) => show("prompt-tokens", `${done} of ${total} tokens`),
        onPiece: (piece, tokens) => {
          if (!answer.text) engine.setState("busy", "Writing…");
          answer.append(piece);
          watch.show(tokens);
        },
      }),
    );
    showStats(result);
    answer.note(result.text ? ENDINGS[result.stop_reason] : NOTHING);
    conversation.add(question, { role: "assistant", content: result.text });
    engine.setState("ready", "Ready.");
  } catch (error) {
    // A partial answer stays; without one the question is withdrawn, and can be asked again.
    if (answer.text) conversation.add(question, { role: "assistant", content: answer.text });
    else withdraw(conversation, text, replaced);
    showFault(error, answer);
  }
  answer.finish();
  if (conversation !== talk) return;
  conversation.save();
  draft.set(prompt.value);
  list.offerActions();
  show("spoken", answer.text);
}

/** @param {Conversation} conversation @param {string} text @param {Turn[]} replaced */
function withdraw(conversation, text, replaced) {
  conversation.add(...replaced);
  if (conversation !== talk) return;
  list.removeLast(2);
  for (const { role, content } of replaced) list.add(role, content).finish();
  if (replaced[0]?.content === text) return; // it stands there again, with its former answer
  prompt.value = [text, prompt.value].filter(Boolean).join("\n");
  setEditing(replaced.length > 0);
}

/** @param {unknown} error @param {ShownMessage} answer */
function showFault(error, answer) {
  const category = error instanceof BasculeError ? error.category : "";
  if (category === "cancelled") {
    answer.note(STOPPED);
    if (busy) engine.setState("ready", STOPPED); // else another model loads already
  } else if (error instanceof BasculeError && category === "context-length") {
    // The hint for a page differs from that for a program.
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
  setQueued(false);
  setEditing(false);
  talk = new Conversation();
  talk.save();
  list.show([]);
  if (engine.state === "ready") engine.setState("ready", "Ready."); // an error was the former chat's
  clearFigures();
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    show("queued", "Copied.");
  } catch {
    show("queued", "The browser did not allow copying: select the text instead.");
  }
}

/** @param {string} suffix @param {string} type @param {(model: string, system: string) => string} write */
function save(suffix, type, write) {
  part("export", HTMLDetailsElement).open = false;
  part("export", HTMLDetailsElement).querySelector("summary")?.focus();
  if (!talk.messages.length) show("queued", "There are no messages yet.");
  else download(`conversation.${suffix}`, type, write(engine.client.loaded?.model ?? "a model", value("system").trim()));
}

/** @param {string} name */
function value(name) {
  const field = settings.elements.namedItem(name);
  return field instanceof HTMLInputElement || field instanceof HTMLTextAreaElement ? field.value : "";
}

/** The settings, in Python's form; empty fields have Python's defaults. @returns {Options} */
function options() {
  const greedy = part("greedy", HTMLInputElement).checked;
  const names = greedy ? ["max_new_tokens"] : ["max_new_tokens", "temperature", "top_p", "seed"];
  const filled = names.filter((name) => value(name).trim()).map((name) => [name, Number(value(name))]);
  return { greedy, ...Object.fromEntries(filled) };
}

/** @param {string} id @param {() => void} work */
function pressed(id, work) {
  part(id, HTMLElement).addEventListener("click", work);
}

part("composer", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (busy) stop();
  else send();
});
prompt.addEventListener("input", () => draft.set(prompt.value));
prompt.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter confirms it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  part("export", HTMLDetailsElement).open = false;
  if (busy) stop();
  else setQueued(false);
});
pressed("new", restart);
pressed("keep", () => {
  setEditing(false);
  prompt.value = "";
  prompt.focus();
});
for (const name of /** @type {const} */ (["markdown", "json"])) {
  document.querySelector(`#export [name=${name}]`)?.addEventListener("click", () => {
    if (name === "json") save("json", "application/json", (...args) => talk.asJson(...args));
    else save("md", "text/markdown", (...args) => talk.asMarkdown(...args));
  });
}
settings.addEventListener("submit", (event) => event.preventDefault());
settings.addEventListener("change", () => {
  part("sampling", HTMLFieldSetElement).disabled = part("greedy", HTMLInputElement).checked;
});
prompt.value ||= draft.get();
list.show(talk.messages);
loadMarkdown()
  .then(() => busy || list.show(talk.messages))
  .catch(() => {}); // answers are shown as plain text then
engine.ready.then(() => document.activeElement === document.body && prompt.focus()).catch(() => {});
