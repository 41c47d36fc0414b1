// node snapshot.mjs STEPS PYODIDE WHEEL KEY TARGET: boot that Pyodide folder with the wheel and write a
// snapshot of its memory. STEPS is web/snapshot-steps.mjs. Prints {version, modules} as JSON.

import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [stepsPath, pyodideFolder, wheelPath, key, target] = process.argv.slice(2);
const { collect, makeSnapshot, unpack } = await import(pathToFileURL(stepsPath).href);
const home = `${pyodideFolder.replace(/\/$/, "")}/`;
const { loadPyodide, version } = await import(pathToFileURL(`${home}pyodide.mjs`).href);
const wheel = new Uint8Array(await readFile(wheelPath));
const quiet = { stdout: () => {}, stderr: (text) => console.error(text) };

async function start(options) {
  const pyodide = await loadPyodide({ indexURL: home, ...quiet, ...options });
  unpack(pyodide, wheel);
  return pyodide;
}

const collected = await collect(await start({}), true);
const { bytes, modules } = makeSnapshot(await start({ _makeSnapshot: true }), key, collected);
await writeFile(target, bytes);
console.log(JSON.stringify({ version, modules }));
