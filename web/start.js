// The page of a server installed from a wheel: the minimum that your own page needs.

import { BasculeClient, faultOf } from "./client.js";

const MODEL = new URL(location.href).searchParams.get("model") ?? document.documentElement.dataset.model ?? "";
const TIER = new URL(location.href).searchParams.get("tier") ?? "auto";

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const client = new BasculeClient({
  onProgress({ stage, done, total }) {
    part("status").textContent = `${stage} ${total ? Math.round((100 * done) / total) : 0}%`;
  },
});

part("embed").addEventListener("click", async () => {
  try {
    if (!client.loaded) await client.load(MODEL, TIER);
    const texts = part("texts").value.split("\n").filter(Boolean);
    const { data, rows, columns, tier } = await client.embed(texts);
    part("status").textContent = `${rows} embeddings of ${columns} numbers on ${tier}.`;
    const firsts = Array.from({ length: rows }, (_, row) => [...data.slice(row * columns, row * columns + 4)]);
    part("result").textContent = firsts.map((row) => row.map((x) => x.toFixed(6)).join("  ")).join("\n");
  } catch (error) {
    const { what, hint } = faultOf(error);
    part("status").textContent = `${what} ${hint}`;
  }
});
