// A conversation: stored in this tab over a reload, and exported as a file.

/** A message of this page. @typedef {{ role: "user" | "assistant", content: string }} Turn */

const MESSAGES = "bascule-conversation";
const DRAFT = "bascule-draft";

/** @param {string} key */
function read(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return ""; // storage is blocked
  }
}

/** @param {string} key @param {string} text */
function write(key, text) {
  try {
    if (text) sessionStorage.setItem(key, text);
    else sessionStorage.removeItem(key);
  } catch {
    // blocked or full: a reload then starts over
  }
}

/** The message that is being written. */
export const draft = {
  get: () => read(DRAFT),
  /** @param {string} text */
  set: (text) => write(DRAFT, text),
};

export class Conversation {
  /** Question and answer in turn. @type {Turn[]} */
  messages = [];

  /** This tab's conversation from before a reload, or a new one. */
  static restored() {
    const conversation = new Conversation();
    try {
      const messages = JSON.parse(read(MESSAGES) || "[]");
      const valid = messages.every(
        (/** @type {any} */ { role, content }, /** @type {number} */ i) =>
          role === (i % 2 ? "assistant" : "user") && typeof content === "string",
      );
      if (valid && messages.length % 2 === 0) conversation.messages = messages;
    } catch {
      // not ours, or of another version
    }
    return conversation;
  }

  /** @param {...Turn} messages */
  add(...messages) {
    this.messages.push(...messages);
  }

  /** Remove the last question and its answer. @returns {Turn[]} both, or none */
  takeLast() {
    return this.messages.splice(-2);
  }

  /** Store it for a reload of this tab. */
  save() {
    write(MESSAGES, this.messages.length ? JSON.stringify(this.messages) : "");
  }

  /** @param {string} model @param {string} system */
  asMarkdown(model, system) {
    const parts = [`# Conversation with ${model}`];
    if (system) parts.push("## System", system);
    for (const { role, content } of this.messages) parts.push(role === "user" ? "## You" : "## Model", content);
    return `${parts.join("\n\n")}\n`;
  }

  /** @param {string} model @param {string} system */
  asJson(model, system) {
    const before = system ? [{ role: "system", content: system }] : [];
    return `${JSON.stringify({ model, messages: [...before, ...this.messages] }, null, 2)}\n`;
  }
}

/** Let the browser save a text as a file. @param {string} name @param {string} type @param {string} text */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // some browsers read it later
}
