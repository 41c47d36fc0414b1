// A page that a bundler builds: only what it fetches at run time has a URL of its own.
import { BasculeClient } from "bascule/client.js";

/** @param {{ model: string, tier: string, texts: string[] }} asked */
async function embed({ model, tier, texts }) {
  const base = import.meta.env.BASE_URL;
  const client = new BasculeClient({ pyodide: `${base}pyodide/`, wheel: `${base}wheel/index.json` });
  const { tier: took } = await client.load(model, tier);
  const { data, columns } = await client.embed(texts);
  return { tier: took, data: Array.from(data), columns };
}

Object.assign(globalThis, { embed });
