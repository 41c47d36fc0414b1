// node snapshot.mjs PYODIDE WHEEL KEY TARGET: boot that Pyodide folder with the wheel and write a
// snapshot of its memory. Prints {version, modules} as JSON.

import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const FOLDER = "/lib/bascule"; // in Pyodide; web/boot.js unpacks there, too
const UNPACK = `
import zipfile, sys
zipfile.ZipFile("/tmp/page.whl").extractall("${FOLDER}")
sys.path.append("${FOLDER}")
del zipfile, sys
`;

const [pyodideFolder, wheelPath, key, target] = process.argv.slice(2);
const home = `${pyodideFolder.replace(/\/$/, "")}/`;
const { loadPyodide, version } = await import(pathToFileURL(`${home}pyodide.mjs`).href);
const wheel = new Uint8Array(await readFile(wheelPath));
const quiet = { stdout: () => {}, stderr: (text) => console.error(text) };

async function start(options) {
  const pyodide = await loadPyodide({ indexURL: home, ...quiet, ...options });
  pyodide.FS.writeFile("/tmp/page.whl", wheel);
  pyodide.runPython(UNPACK);
  return pyodide;
}

/** What a page imports, compiled: a Pyodide of its own, since compiling leaves garbage behind. */
async function collect() {
  const pyodide = await start({});
  await pyodide.loadPackage("numpy", { messageCallback: () => {} });
  pyodide.runPython(`
import numpy, bascule.page_browser
from bascule.snapshot import collect
with open("/tmp/collected", "wb") as sink:
    sink.write(collect("${FOLDER}"))
`);
  return pyodide.FS.readFile("/tmp/collected");
}

const collected = await collect();
const pyodide = await start({ _makeSnapshot: true });
pyodide.FS.writeFile("/tmp/collected", collected);
pyodide.globals.set("key", key);
const modules = JSON.parse(
  pyodide.runPython(`
import gc, json
from bascule.snapshot import prepare
with open("/tmp/collected", "rb") as source:
    names = prepare(key, "${FOLDER}", source.read())
del key, source
gc.collect()
json.dumps(names)
`),
);
await writeFile(target, pyodide.makeMemorySnapshot());
console.log(JSON.stringify({ version, modules }));
