// Boots a Pyodide, puts the project's wheel into it (with numpy where this Pyodide has it), and runs
// the Python that a test sends. For tests only: the real page runs no code that is sent to it.
const base = new URL(new URL(location.href).searchParams.get("pyodide") ?? "/pyodide/", location.href);

async function boot() {
  const { loadPyodide } = await import(new URL("pyodide.mjs", base).href);
  const pyodide = await loadPyodide({ indexURL: base.href });
  const { wheel } = await (await fetch("/wheel/index.json")).json();
  const url = new URL(`/wheel/${wheel}`, location.href).href;
  if (base.pathname === "/pyodide/") {
    await pyodide.loadPackage(["numpy", "micropip"]);
    await pyodide.pyimport("micropip").install(url);
  } else {
    pyodide.unpackArchive(await (await fetch(url)).arrayBuffer(), "wheel");
  }
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
