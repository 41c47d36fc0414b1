// The two steps that make a memory snapshot of Python, each in a Pyodide of its own: for
// snapshot-worker.js in a browser, and for py/bascule/server/snapshot.mjs in node.

const PAGE_NBYTES = 1 << 16; // of WebAssembly

/** The folder of the package in Pyodide. */
export const FOLDER = "/lib/bascule";

const UNPACK = `
import zipfile, sys
zipfile.ZipFile("/tmp/page.whl").extractall("${FOLDER}")
sys.path.append("${FOLDER}")
del zipfile, sys
`;
const COLLECT = `
try:
    import numpy
except ImportError:
    pass  # it was not loaded
import bascule.page.worker_browser
import bascule.backend.webgpu.opening
from bascule.page.snapshot import collect
from bascule.text.jinja_library import provide_jinja
provide_jinja()
import bascule.text.template_renderer
with open("/tmp/collected", "wb") as sink:
    sink.write(collect("${FOLDER}"))
`;
const PREPARE = `
import gc, json
from bascule.page.snapshot import prepare
with open("/tmp/collected", "rb") as source:
    names = prepare(key, "${FOLDER}", source.read())
del key, source
gc.collect()
json.dumps(names)
`;

/** Unpack the wheel without a reference to JavaScript, which no snapshot can hold.
 * @param {any} pyodide @param {Uint8Array} wheel */
export function unpack(pyodide, wheel) {
  pyodide.FS.writeFile("/tmp/page.whl", wheel);
  pyodide.runPython(UNPACK);
}

/** What a page imports, compiled, from a Pyodide with the wheel unpacked. Compiling leaves garbage in
 * its memory, which no snapshot should have. @param {any} pyodide @param {boolean} numpy whether to
 * compile numpy, too, where this Pyodide has it @returns {Promise<Uint8Array<ArrayBuffer>>} */
export async function collect(pyodide, numpy) {
  const quiet = { messageCallback: () => {}, errorCallback: () => {} };
  if (numpy) await pyodide.loadPackage("numpy", quiet).catch(() => {}); // then it is not compiled
  pyodide.runPython(COLLECT);
  return pyodide.FS.readFile("/tmp/collected");
}

/** The snapshot, from a second Pyodide with the wheel unpacked (`_makeSnapshot`), and the names of the
 * modules in it. @param {any} pyodide @param {string} key @param {Uint8Array} collected
 * @returns {{ bytes: Uint8Array<ArrayBuffer>, modules: string[] }} */
export function makeSnapshot(pyodide, key, collected) {
  pyodide.FS.writeFile("/tmp/collected", collected);
  pyodide.globals.set("key", key);
  const modules = JSON.parse(pyodide.runPython(PREPARE));
  return { bytes: trimmed(pyodide.makeMemorySnapshot(), pyodide._module._sbrk(0)), modules };
}

/** A snapshot without its unused memory: it grows when it needs more. The second
 * word of a snapshot is the offset of its memory. @param {Uint8Array<ArrayBuffer>} snapshot
 * @param {number} end of what was allocated */
function trimmed(snapshot, end) {
  const [, start] = new Uint32Array(snapshot.buffer, snapshot.byteOffset, 2);
  return snapshot.slice(0, start + Math.ceil(end / PAGE_NBYTES) * PAGE_NBYTES);
}
