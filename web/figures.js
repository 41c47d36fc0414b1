// The chat's figures: speed, first token, prompt.

import { show } from "./dom.js";

const NONE = "–";

/** @param {number} rate */
function perSecond(rate) {
  return `${rate.toFixed(1)} tokens/s`;
}

export function clearFigures() {
  for (const id of ["speed", "first", "prompt-tokens"]) show(id, NONE);
}

/** Times a text while it is written. */
export class Watch {
  #began = performance.now();
  #first = 0;
  #tokens = 0;

  /** @param {number} tokens so far */
  show(tokens) {
    const now = performance.now();
    if (!this.#first) {
      this.#first = now;
      this.#tokens = tokens;
      show("first", `${(now - this.#began).toFixed(0)} ms`);
    }
    const rate = (1000 * (tokens - this.#tokens)) / (now - this.#first);
    if (Number.isFinite(rate) && rate > 0) show("speed", perSecond(rate));
  }
}

/** @param {import("./protocol.js").Generation} made */
export function showStats({ stats }) {
  if (stats.decode_tokens_per_s) show("speed", perSecond(stats.decode_tokens_per_s));
  if (stats.first_token_ms) show("first", `${stats.first_token_ms.toFixed(0)} ms`);
  show("prompt-tokens", `${stats.prompt_tokens} tokens, ${stats.reused_tokens} reused`);
}
