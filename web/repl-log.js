// The display of a console: sources, text and pictures, the newest last.

import { make } from "./dom.js";

const MAX_ENTRIES = 2000;

export class ConsoleLog {
  #list;

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
  }

  /** A source that was run. @param {string} source */
  source(source) {
    this.#add(make("pre", "source", source));
  }

  /** Append text; text of one kind continues one block. @param {string} kind "out", "err", "value", "error" or "names"
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
    const shown = this.#shown(id);
    const button = shown instanceof HTMLButtonElement ? shown : make("button", "picture");
    button.dataset.id = String(id);
    asButton(button, image, clicked);
    if (!shown) this.#add(button);
  }

  /** A canvas that is drawn on from now on, a button where `clicked` is given; null where it is in the log.
   * @param {{ id: number, width: number, height: number }} said
   * @param {((x: number, y: number) => void) | null} clicked as for a picture */
  canvas({ id, width, height }, clicked) {
    if (this.#shown(id)) return null;
    const canvas = make("canvas", "");
    [canvas.width, canvas.height] = [width, height];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `What the source draws${clicked ? ": a click on it goes on" : ""}.`);
    const entry = make(clicked ? "button" : "div", "picture");
    entry.dataset.id = String(id);
    if (entry instanceof HTMLButtonElement && clicked) asButton(entry, canvas, clicked);
    else entry.append(canvas);
    this.#add(entry);
    return canvas;
  }

  /** Detach all canvases: a new Python starts its numbers again. */
  forget() {
    for (const entry of this.#list.querySelectorAll("[data-id]")) entry.removeAttribute("data-id");
  }

  /** @param {number} id */
  #shown(id) {
    const shown = this.#list.querySelector(`[data-id="${id}"]`);
    return shown instanceof HTMLElement ? shown : null;
  }

  clear() {
    this.#list.replaceChildren();
  }

  /** @param {HTMLElement} entry */
  #add(entry) {
    this.#list.append(entry);
    while (this.#list.childElementCount > MAX_ENTRIES) this.#list.firstElementChild?.remove();
    this.#follow();
  }

  #follow() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}

/** @param {HTMLButtonElement} button @param {HTMLElement} picture what it has
 * @param {(x: number, y: number) => void} clicked */
function asButton(button, picture, clicked) {
  button.type = "button";
  button.replaceChildren(picture);
  button.onclick = ({ detail, clientX, clientY }) => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    if (detail) clicked((clientX - left) / width, (clientY - top) / height);
    else clicked(0.5, 0.5); // by a key
  };
}
