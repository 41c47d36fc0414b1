// Pyodide with the wheel in it, and what it is asked: for main threads and workers alike.
import { faultOf } from "../protocol.js";

/** @typedef {{ model: string, tier: string, texts: string[], bridge: string }} Asked */

const CODE = `
import bascule
if asked.bridge:
    bascule.configure(bridge=asked.bridge)
model = await bascule.load(asked.model, tier=asked.tier)
embeddings = await model.embed(list(asked.texts))
tier, columns, data = model.tier, embeddings.shape[1], embeddings.ravel().tolist()
model.close()
import json
json.dumps({"tier": tier, "data": data, "columns": columns})
`;

/** @param {string} pyodide @param {string} index */
export async function loadIn(pyodide, index) {
  const base = new URL(pyodide, import.meta.url);
  const { loadPyodide } = await import(new URL("pyodide.mjs", base).href);
  const python = await loadPyodide({ indexURL: base.href, packages: ["numpy"] });
  const at = new URL(index, import.meta.url);
  const { wheel } = await (await fetch(at)).json();
  python.unpackArchive(await (await fetch(new URL(wheel, at))).arrayBuffer(), "wheel");
  return python;
}

/** @param {any} python @param {Asked} asked */
export async function embedIn(python, asked) {
  python.globals.set("asked", asked);
  try {
    return JSON.parse(await python.runPythonAsync(CODE));
  } catch (error) {
    return { fault: faultOf(error, python) };
  }
}
