// Similarities as a table that is also a heat map, and as a list of the closest pairs.

import { make } from "./dom.js";
import { closestPairs } from "./similarity.js";

const MAX_PAIRS = 5;
/** With more sentences columns are too narrow for two decimals and a zero. */
const WIDE = 12;
// Where black or white text is readable on the mixed colour, by theme (style.css).
const WARM = 0.72;
const HOT = 0.83;

/** The text for a pair. @param {string[]} texts @param {Float32Array} scores @param {number} a @param {number} b */
export function describe(texts, scores, a, b) {
  const score = decimals(scores[a * texts.length + b], 3);
  if (a === b) return `${score}: ${a + 1} “${texts[a]}” with itself`;
  return `${score}: ${a + 1} “${texts[a]}” and ${b + 1} “${texts[b]}”`;
}

/** Rounding alone would show a small negative number as -0.00. @param {number} score @param {number} n */
function decimals(score, n) {
  const text = score.toFixed(n);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

/** Which cell the arrow keys lead to; null for other keys.
 * @param {string} key @param {number} n @param {number} row @param {number} column */
export function moved(key, n, row, column) {
  const last = n - 1;
  const to = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    PageUp: [row - 10, column],
    PageDown: [row + 10, column],
    Home: [row, 0],
    End: [row, last],
  }[key];
  return to ? to.map((at) => Math.min(last, Math.max(0, at))) : null;
}

/**
 * Draw the table; Tab reaches one of its cells, the arrow keys the others.
 * @param {HTMLTableElement} table @param {string[]} texts @param {Float32Array} scores (n, n)
 * @param {(a: number, b: number) => void} point called with the pair under the pointer or the focus
 */
export function drawTable(table, texts, scores, point) {
  const n = texts.length;
  table.replaceChildren();
  table.setAttribute("aria-label", `Similarity of ${n} sentences`);
  table.classList.toggle("dense", n > WIDE);
  const corner = make("th", "", make("span", "unseen", "Sentence"));
  table.createTHead().insertRow().append(corner, ...texts.map((text, i) => heading("col", i, text)));
  const body = table.createTBody();
  for (let a = 0; a < n; a++) {
    const row = body.insertRow();
    row.append(heading("row", a, texts[a]));
    for (let b = 0; b < n; b++) row.append(cell(scores[a * n + b], n > WIDE));
  }
  const cells = [...body.querySelectorAll("td")];
  if (cells[0]) cells[0].tabIndex = 0;
  const at = (/** @type {Event} */ event) => cells.indexOf(/** @type {any} */ (event.target));
  const pointed = (/** @type {Event} */ event) => {
    const index = at(event);
    if (index >= 0) point(Math.floor(index / n), index % n);
  };
  body.addEventListener("pointerover", pointed);
  body.addEventListener("focusin", pointed);
  body.addEventListener("keydown", (event) => {
    const index = at(event);
    const to = moved(event.key, n, Math.floor(index / n), index % n);
    if (index < 0 || !to) return;
    event.preventDefault();
    cells[index].tabIndex = -1;
    const next = cells[to[0] * n + to[1]];
    next.tabIndex = 0;
    next.focus();
  });
}

/** @param {string} scope @param {number} index @param {string} text */
function heading(scope, index, text) {
  const th = make("th", "", String(index + 1));
  th.scope = scope;
  th.title = text;
  return th;
}

/** @param {number} score @param {boolean} short */
function cell(score, short) {
  const td = make("td", "", short ? decimals(score, 2).replace("0.", ".") : decimals(score, 2));
  const heat = Math.max(0, Math.min(1, score));
  td.tabIndex = -1;
  td.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
  td.classList.toggle("warm", heat > WARM);
  td.classList.toggle("hot", heat > HOT);
  return td;
}

/** @param {HTMLOListElement} list @param {string[]} texts @param {Float32Array} scores */
export function drawPairs(list, texts, scores) {
  const pairs = closestPairs(scores, texts.length, MAX_PAIRS);
  list.replaceChildren(
    ...pairs.map(({ a, b, score }) =>
      make("li", "", make("span", "score", decimals(score, 2)), make("p", "", texts[a]), make("p", "", texts[b])),
    ),
  );
}
