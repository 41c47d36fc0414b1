// The switches that a page's address may set (index.html?BASCULE_DISABLE_WEBGPU=1). Nothing else of an
// address gets into Python's environment. py/bascule/choosing/switches.py describes them.

const BACKENDS = ["WEBGPU", "WEBGPU_LIMITED", "WEBNN", "WASM", "CPU", "JAX", "NUMBA", "TORCH", "NUMPY"];
/** All of them. */
export const SWITCHES = [
  "BASCULE_MEMORY_MB",
  "BASCULE_PLATFORM_NAME",
  ...BACKENDS.flatMap((name) => [`BASCULE_FORCE_${name}`, `BASCULE_DISABLE_${name}`]),
];
const MAX_LENGTH = 80;

/** Those for Python's environment. @param {URLSearchParams} query @returns {Record<string, string>} */
export function switchesOf(query) {
  return Object.fromEntries([...query].filter(([name]) => SWITCHES.includes(name)));
}

/** A warning for each name that looks like a switch and is none.
 * @param {URLSearchParams} query @returns {string[]} */
export function unknownSwitches(query) {
  const names = new Set([...query.keys()].filter((name) => /^BASCULE_/i.test(name) && !SWITCHES.includes(name)));
  return [...names].map((name) => {
    const shown = name.slice(0, MAX_LENGTH);
    const [near] = SWITCHES.map((known) => ({ known, edits: distance(shown.toUpperCase(), known) })).sort(
      (a, b) => a.edits - b.edits,
    );
    const hint = near.edits <= near.known.length / 3 ? ` Did you mean ${near.known}?` : "";
    return `${shown} in this page's address has no effect: it is not a switch of a page.${hint}`;
  });
}

/** Letters to insert, remove or replace (Levenshtein). @param {string} a @param {string} b */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, replaced));
    }
    row = next;
  }
  return row[b.length];
}
