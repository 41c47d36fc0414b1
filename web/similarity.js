// The similarity of embeddings, computed in slices, so that the page stays responsive.

const SLICE_MS = 8;

/** @typedef {{ a: number, b: number, score: number }} Pair */

/** Long work of the page, which lets the browser draw every few milliseconds. */
export class Slices {
  #signal;
  #onProgress;
  #began = performance.now();

  /** @param {AbortSignal} signal ends it @param {(fraction: number) => void} onProgress */
  constructor(signal, onProgress) {
    this.#signal = signal;
    this.#onProgress = onProgress;
  }

  /** Call it often: it waits only once a slice has passed. @param {number} fraction of the work so far */
  async turn(fraction) {
    if (performance.now() - this.#began < SLICE_MS) return;
    this.#onProgress(fraction);
    await new Promise((resolve) => setTimeout(resolve));
    this.#signal.throwIfAborted();
    this.#began = performance.now();
  }
}

/** Cosine similarities of rows of length 1: (rows, rows), row by row.
 * @param {Float32Array} data (rows, columns) @param {number} rows @param {number} columns
 * @param {Slices} slices */
export async function similarities(data, rows, columns, slices) {
  const result = new Float32Array(rows * rows);
  for (let a = 0; a < rows; a++) {
    for (let b = 0; b <= a; b++) result[a * rows + b] = result[b * rows + a] = dot(data, a, b, columns);
    await slices.turn((a / rows) ** 2);
  }
  return result;
}

/** @param {Float32Array} data @param {number} a @param {number} b @param {number} columns */
function dot(data, a, b, columns) {
  let sum = 0;
  for (let c = 0; c < columns; c++) sum += data[a * columns + c] * data[b * columns + c];
  return sum;
}

/** The `count` most similar pairs, best first. @param {Float32Array} scores (n, n) @param {number} n
 * @param {number} count @returns {Pair[]} */
export function closestPairs(scores, n, count) {
  /** @type {Pair[]} */
  const best = [];
  for (let a = 0; a < n; a++) {
    for (let b = a + 1; b < n; b++) {
      const score = scores[a * n + b];
      if (best.length === count && score <= best[count - 1].score) continue;
      const at = best.findIndex((pair) => score > pair.score);
      best.splice(at < 0 ? best.length : at, 0, { a, b, score });
      best.length = Math.min(best.length, count);
    }
  }
  return best;
}
