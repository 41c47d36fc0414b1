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

  /** A picture; an SVG file is shown as one, so that no script of its own runs. One with an `id` is a button, and
   * takes the place of the one that has it already.
   * @param {string} mime @param {Uint8Array<ArrayBuffer>} data @param {number} id 0 for none
   * @param {(x: number, y: number) => void} clicked where, as shares of its width and height */
  picture(mime, data, id, clicked) {
    const image = make("img", "");
    image.alt = id ? "A picture that the source drew: a click on it goes on." : "A picture that the source drew.";
    const url = URL.createObjectURL(new Blob([data], { type: mime }));
    image.addEventListener("load", () => {
      URL.revokeObjectURL(url);
      this.#follow();
    });
    image.src = url;
    if (!id) return this.#add(image);
    const shown = this.#list.querySelector(`button[data-id="${id}"]`);
    const button = shown instanceof HTMLButtonElement ? shown : make("button", "picture");
    button.type = "button";
    button.dataset.id = String(id);
    button.replaceChildren(image);
    button.onclick = ({ detail, clientX, clientY }) => {
      const { left, top, width, height } = image.getBoundingClientRect();
      if (detail) clicked((clientX - left) / width, (clientY - top) / height);
      else clicked(0.5, 0.5); // by a key
    };
    if (!shown) this.#add(button);
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
