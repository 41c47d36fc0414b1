// The display of a conversation. What a person types is shown verbatim, what a model writes as markdown
// (markdown.js).

import { make, plainButton } from "./dom.js";
import { showMarkdown } from "./markdown.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {"user" | "assistant"} Role */
/** @typedef {{ copy: (text: string) => void, again: () => void, edit: () => void }} Actions */

const NAMES = { user: "You", assistant: "Model" };
// Scrolled this close to the end, the list follows new text.
const NEAR_PX = 48;

export class MessageList {
  #list;
  #box;
  #empty;
  #actions;
  /** @type {ShownMessage[]} */
  #shown = [];
  #atEnd = true;

  /** @param {HTMLElement} box what scrolls @param {HTMLElement} list @param {HTMLElement} empty
   * @param {Actions} actions what a message's buttons do */
  constructor(box, list, empty, actions) {
    this.#box = box;
    this.#list = list;
    this.#empty = empty;
    this.#actions = actions;
    // When the window shrinks the end stays visible.
    new ResizeObserver(() => this.#atEnd && this.#scrollToEnd()).observe(box);
    box.addEventListener("scroll", () => (this.#atEnd = this.#isNear()));
  }

  /** Show a conversation in place of the present one. @param {Turn[]} messages */
  show(messages) {
    this.removeLast(this.#shown.length);
    for (const { role, content } of messages) this.add(role, content).finish();
    this.offerActions();
  }

  /** @param {number} n */
  removeLast(n) {
    for (const message of this.#shown.splice(this.#shown.length - n)) message.item.remove();
    this.#empty.hidden = this.#shown.length > 0;
  }

  /** @param {Role} role @param {string} text */
  add(role, text) {
    this.#empty.hidden = true;
    const message = new ShownMessage(role, text, (change) => this.#following(change));
    this.#shown.push(message);
    this.#following(() => this.#list.append(message.item), true);
    return message;
  }

  /** Copy every answer; repeat the last answer; change the last question. */
  offerActions() {
    const { copy, again, edit } = this.#actions;
    const [question, answer] = this.#shown.slice(-2);
    for (const message of this.#shown) {
      const buttons = [];
      if (message.role === "assistant") buttons.push(plainButton("Copy", () => copy(message.text)));
      if (message === answer) buttons.push(plainButton("Regenerate", again));
      if (message === question && answer) buttons.push(plainButton("Edit", edit));
      message.actions = buttons;
    }
    this.#scrollToEnd();
  }

  /** While an answer is written nothing can be repeated. */
  withdrawActions() {
    for (const message of this.#shown) message.actions = [];
  }

  /** Change the content, and stay scrolled to the end. @param {() => void} change
   * @param {boolean} [always] */
  #following(change, always = false) {
    const near = this.#isNear();
    change();
    if (near || always) this.#scrollToEnd();
  }

  #isNear() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }

  #scrollToEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
  }
}

/** One message, which may still grow. */
export class ShownMessage {
  #body = make("div", "body plain-text");
  #note = make("p", "note quiet");
  #actions = make("div", "actions");
  #following;
  #drawing = 0;

  /** @param {Role} role @param {string} text @param {(change: () => void) => void} following */
  constructor(role, text, following) {
    this.role = role;
    this.text = text;
    this.#following = following;
    this.#body.dir = "auto";
    this.#body.append(text);
    this.item = make("li", role, make("span", "name", NAMES[role]), this.#body, this.#note, this.#actions);
    this.item.dataset.text = text;
  }

  /** @param {string} text */
  append(text) {
    this.item.classList.add("writing");
    this.text += text;
    // At most once a frame.
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  /** The message is complete. */
  finish() {
    cancelAnimationFrame(this.#drawing);
    this.item.classList.remove("writing");
    this.#draw();
  }

  #draw() {
    this.#drawing = 0;
    this.item.dataset.text = this.text;
    if (this.role === "user") return;
    this.#following(() => showMarkdown(this.#body, this.text));
  }

  /** Say why the text ends. @param {string} text */
  note(text) {
    this.#following(() => (this.#note.textContent = text));
  }

  /** @param {HTMLElement[]} buttons */
  set actions(buttons) {
    this.#actions.replaceChildren(...buttons);
    this.#actions.hidden = !buttons.length;
  }
}
