// What a console shows: sources, text and pictures, the newest last.

import { make } from "./dom.js";

const MOST_ENTRIES = 2000;

export class ConsoleLog {
  #list;

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
  }

  /** What somebody ran. @param {string} source */
  source(source) {
    this.#add(make("pre", "source", source));
  }

  /** Text of one kind goes on in one block. @param {string} kind "out", "err", "value", "error" or "names"
   * @param {string} text */
  text(kind, text) {
    const last = this.#list.lastElementChild;
    if (last instanceof HTMLPreElement && last.className === kind) last.append(text);
    else this.#add(make("pre", kind, text));
    this.#follow();
  }

  /** A picture; an SVG file is shown as one, so that no script of its own runs.
   * @param {string} mime @param {Uint8Array<ArrayBuffer>} data */
  picture(mime, data) {
    const image = make("img", "");
    image.alt = "A picture that the source drew.";
    const url = URL.createObjectURL(new Blob([data], { type: mime }));
    image.addEventListener("load", () => {
      URL.revokeObjectURL(url);
      this.#follow();
    });
    image.src = url;
    this.#add(image);
  }

  clear() {
    this.#list.replaceChildren();
  }

  /** @param {HTMLElement} entry */
  #add(entry) {
    this.#list.append(entry);
    while (this.#list.childElementCount > MOST_ENTRIES) this.#list.firstElementChild?.remove();
    this.#follow();
  }

  #follow() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}
