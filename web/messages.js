// The conversation as one sees it. What a model writes is as foreign as what anybody types: it only ever
// becomes text nodes.

/** @typedef {import("./protocol.js").Message} Message */

const NAMES = { user: "You", assistant: "Model" };
// So near to the end somebody reads along: what comes scrolls with them.
const NEAR_PX = 48;

export class MessageList {
  #list;
  #box;
  #empty;

  /** @param {HTMLElement} box what scrolls @param {HTMLElement} list @param {HTMLElement} empty */
  constructor(box, list, empty) {
    this.#box = box;
    this.#list = list;
    this.#empty = empty;
  }

  /** @param {"user" | "assistant"} role @param {string} text */
  add(role, text) {
    this.#empty.hidden = true;
    const item = document.createElement("li");
    item.className = role;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = NAMES[role];
    const body = document.createElement("p");
    body.dir = "auto";
    const written = document.createTextNode(text);
    body.append(written);
    item.append(name, body);
    this.#following(() => this.#list.append(item), true);
    return new ShownMessage(item, written, (change) => this.#following(change));
  }

  clear() {
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  /** Change what is shown, and stay at the end for who is there. @param {() => void} change
   * @param {boolean} [always] */
  #following(change, always = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    change();
    if (near || always) this.#box.scrollTop = this.#box.scrollHeight;
  }
}

/** One message, which may still grow. */
export class ShownMessage {
  #item;
  #written;
  #following;

  /** @param {HTMLElement} item @param {Text} written @param {(change: () => void) => void} following */
  constructor(item, written, following) {
    this.#item = item;
    this.#written = written;
    this.#following = following;
  }

  get text() {
    return this.#written.data;
  }

  /** @param {string} text */
  append(text) {
    this.#following(() => this.#written.appendData(text));
  }

  /** Whether more is to come. @param {boolean} writing */
  set writing(writing) {
    this.#item.classList.toggle("writing", writing);
  }

  /** Why the text ends where it does. @param {string} text */
  note(text) {
    const note = document.createElement("p");
    note.className = "note quiet";
    note.textContent = text;
    this.#following(() => this.#item.append(note));
  }

  remove() {
    this.#item.remove();
  }
}
