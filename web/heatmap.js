// Similarities as a table that is also a heat map, and as a list of the closest pairs.

const MOST_PAIRS = 5;

/**
 * Cosine similarities of rows of length 1, row by row.
 * @param {Float32Array} data @param {number} rows @param {number} columns
 */
export function similarities(data, rows, columns) {
  const found = new Float32Array(rows * rows);
  for (let a = 0; a < rows; a++) {
    for (let b = 0; b <= a; b++) {
      let dot = 0;
      for (let c = 0; c < columns; c++) dot += data[a * columns + c] * data[b * columns + c];
      found[a * rows + b] = found[b * rows + a] = dot;
    }
  }
  return found;
}

/**
 * @param {HTMLTableElement} table @param {string[]} texts @param {Float32Array} scores
 * @param {(told: string) => void} point told of the pair under the pointer or the focus
 */
export function drawMatrix(table, texts, scores, point) {
  const n = texts.length;
  table.replaceChildren();
  table.setAttribute("aria-label", `Similarity of ${n} sentences`);
  const head = table.createTHead().insertRow();
  head.append(document.createElement("td"), ...texts.map((text, i) => heading("col", i, text)));
  head.firstElementChild?.setAttribute("style", "background: none");
  const body = table.createTBody();
  for (let a = 0; a < n; a++) {
    const row = body.insertRow();
    row.append(heading("row", a, texts[a]));
    for (let b = 0; b < n; b++) row.append(cell(scores[a * n + b], texts[a], texts[b], point));
  }
}

/** @param {string} scope @param {number} index @param {string} text */
function heading(scope, index, text) {
  const th = document.createElement("th");
  th.scope = scope;
  th.textContent = String(index + 1);
  th.title = text;
  return th;
}

/** @param {number} score @param {string} a @param {string} b @param {(told: string) => void} point */
function cell(score, a, b, point) {
  const td = document.createElement("td");
  const heat = Math.max(0, Math.min(1, score));
  // Rounding alone would write a faint dissimilarity as -0.00.
  td.textContent = score.toFixed(2).replace("-0.00", "0.00");
  td.tabIndex = 0;
  td.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
  td.classList.toggle("hot", heat > 0.7);
  const told = `${score.toFixed(3)}: “${a}” and “${b}”`;
  td.title = told;
  td.addEventListener("pointerenter", () => point(told));
  td.addEventListener("focus", () => point(told));
  return td;
}

/** @param {HTMLOListElement} list @param {string[]} texts @param {Float32Array} scores */
export function drawPairs(list, texts, scores) {
  const n = texts.length;
  const pairs = [];
  for (let a = 0; a < n; a++) {
    for (let b = a + 1; b < n; b++) pairs.push({ a, b, score: scores[a * n + b] });
  }
  pairs.sort((x, y) => y.score - x.score);
  list.replaceChildren(
    ...pairs.slice(0, MOST_PAIRS).map(({ a, b, score }) => {
      const item = document.createElement("li");
      const told = document.createElement("span");
      told.className = "score";
      told.textContent = score.toFixed(2);
      item.append(told, ` ${texts[a]} `, document.createElement("br"), texts[b]);
      return item;
    }),
  );
}
