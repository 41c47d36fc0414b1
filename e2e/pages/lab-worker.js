// Boots a Pyodide as the page does (with numpy where this Pyodide has it) and runs the Python that a
// test sends. For tests only: the real page runs no code that is sent to it. With ?micropip the wheel
// is installed as a page of one's own would install it.
import { boot as bootAsThePage } from "../boot.js";

const query = new URL(location.href).searchParams;
const base = new URL(query.get("pyodide") ?? "/pyodide/", location.href);

async function boot() {
  if (query.has("micropip")) return installed();
  const wheel = new URL(query.get("index") ?? "/wheel/index.json", location.href).href;
  const numpy = base.pathname === "/pyodide/" && !query.has("no-numpy");
  const config = { pyodide: base.href, wheel, env: {}, snapshot: query.has("own") };
  const { pyodide, ...how } = await bootAsThePage(config, () => {});
  if (numpy) await pyodide.loadPackage("numpy", { messageCallback: () => {} });
  globalThis.lab_booted = JSON.stringify(how);
  return pyodide;
}

async function installed() {
  const { loadPyodide } = await import(new URL("pyodide.mjs", base).href);
  const pyodide = await loadPyodide({ indexURL: base.href });
  const { wheel } = await (await fetch("/wheel/index.json")).json();
  await pyodide.loadPackage(["numpy", "micropip"]);
  await pyodide.pyimport("micropip").install(new URL(`/wheel/${wheel}`, location.href).href);
  return pyodide;
}

const booted = boot();

addEventListener("message", async ({ data: { id, code } }) => {
  try {
    const pyodide = await booted;
    globalThis.lab_pyodide = pyodide;
    postMessage({ id, value: await pyodide.runPythonAsync(code) });
  } catch (error) {
    postMessage({ id, error: String(error) });
  }
});
