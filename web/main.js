// The page of sentences: what one sees and presses. All work is done by the worker behind client.js.

import { EngineCard, part } from "./engine.js";
import { drawMatrix, drawPairs, similarities } from "./heatmap.js";

const sentences = part("sentences", HTMLTextAreaElement);
const embedButton = part("embed", HTMLButtonElement);
const engine = new EngineCard("all-MiniLM-L6-v2", "sentence-encoder", (state, fits) => {
  embedButton.disabled = state !== "ready" || !fits;
});

async function compare() {
  if (embedButton.disabled) return;
  const texts = sentences.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!texts.length) {
    engine.setState("ready", "Write a sentence first.");
    return;
  }
  engine.setState("busy", `Embedding ${texts.length} sentences…`);
  const { client, idle } = engine;
  try {
    const before = await client.stats();
    const { data, rows, columns, ms } = await idle.during(() => client.embed(texts));
    const after = await client.stats();
    const scores = similarities(data, rows, columns);
    const pointed = part("pointed", HTMLElement);
    drawMatrix(part("matrix", HTMLTableElement), texts, scores, (told) => (pointed.textContent = told));
    drawPairs(part("pairs", HTMLOListElement), texts, scores);
    part("results", HTMLElement).hidden = false;
    const passes = after.passes - before.passes;
    const tokens = after.tokens - before.tokens;
    part("timings", HTMLElement).textContent =
      `${texts.length} sentences, ${tokens} tokens, ${passes} forward ` +
      `${passes === 1 ? "pass" : "passes"} in ${ms.toFixed(0)} ms`;
    engine.setState("ready", "Ready.");
  } catch (error) {
    engine.showError(error);
  }
}

embedButton.addEventListener("click", compare);
sentences.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compare();
});
