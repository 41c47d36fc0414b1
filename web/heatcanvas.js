// The heat map of many sentences: one pixel per pair on a canvas, read out by pointer and keyboard.

import { moved } from "./heatmap.js";

/** @typedef {import("./similarity.js").Slices} Slices */

const SHADES = 256;

export class HeatCanvas {
  #canvas;
  #cursor;
  #point;
  #n = 0;
  #row = 0;
  #column = 0;
  /** @type {Float32Array} */
  #scores = new Float32Array();

  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} cursor marks the cell that is read out
   * @param {(a: number, b: number) => void} point called with the pair under the pointer or the cursor */
  constructor(canvas, cursor, point) {
    this.#canvas = canvas;
    this.#cursor = cursor;
    this.#point = point;
    canvas.addEventListener("pointermove", (event) => this.#pointAt(event));
    canvas.addEventListener("pointerdown", (event) => this.#pointAt(event));
    canvas.addEventListener("focus", () => this.#moveTo(this.#row, this.#column));
    canvas.addEventListener("blur", () => (cursor.hidden = true));
    canvas.addEventListener("keydown", (event) => {
      const to = moved(event.key, this.#n, this.#row, this.#column);
      if (!to) return;
      event.preventDefault();
      this.#moveTo(to[0], to[1]);
    });
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", () => this.#n && this.#paintRows(this.#shades(), 0, this.#n));
  }

  /** @param {Float32Array} scores (n, n) @param {number} n @param {Slices} slices */
  async draw(scores, n, slices) {
    this.#scores = scores;
    this.#n = n;
    this.#row = this.#column = 0;
    this.#cursor.hidden = true;
    this.#canvas.width = this.#canvas.height = n;
    this.#canvas.setAttribute("aria-label", `Heat map of the similarity of ${n} sentences`);
    const shades = this.#shades();
    const rowsAtOnce = 32;
    for (let row = 0; row < n; row += rowsAtOnce) {
      this.#paintRows(shades, row, Math.min(n, row + rowsAtOnce));
      await slices.turn(row / n);
    }
  }

  /** @param {Uint32Array} shades @param {number} from @param {number} to rows */
  #paintRows(shades, from, to) {
    const n = this.#n;
    const image = new ImageData(n, to - from);
    const pixels = new Uint32Array(image.data.buffer);
    const first = from * n;
    for (let i = 0; i < pixels.length; i++) {
      const heat = Math.max(0, Math.min(1, this.#scores[first + i]));
      pixels[i] = shades[Math.round(heat * (SHADES - 1))];
    }
    this.#canvas.getContext("2d")?.putImageData(image, 0, from);
  }

  /** The colours from the least heat to the most, as pixels. */
  #shades() {
    const style = getComputedStyle(this.#canvas);
    const strip = document.createElement("canvas");
    strip.width = SHADES;
    strip.height = 1;
    const context = /** @type {CanvasRenderingContext2D} */ (strip.getContext("2d"));
    const gradient = context.createLinearGradient(0, 0, SHADES, 0);
    gradient.addColorStop(0, style.getPropertyValue("--cold").trim());
    gradient.addColorStop(1, style.getPropertyValue("--hot").trim());
    context.fillStyle = gradient;
    context.fillRect(0, 0, SHADES, 1);
    return new Uint32Array(context.getImageData(0, 0, SHADES, 1).data.buffer);
  }

  /** @param {PointerEvent} event */
  #pointAt(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const at = (/** @type {number} */ share) => Math.max(0, Math.min(this.#n - 1, Math.floor(share * this.#n)));
    this.#moveTo(at((event.clientY - top) / height), at((event.clientX - left) / width));
  }

  /** @param {number} row @param {number} column */
  #moveTo(row, column) {
    if (!this.#n) return;
    [this.#row, this.#column] = [row, column];
    this.#cursor.hidden = false;
    this.#cursor.style.setProperty("--row", String((row + 0.5) / this.#n));
    this.#cursor.style.setProperty("--column", String((column + 0.5) / this.#n));
    this.#point(row, column);
  }
}
