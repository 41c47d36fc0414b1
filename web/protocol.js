// The messages between the page and its worker.

/**
 * @typedef {{ category: string, what: string, hint: string }} Fault
 * @typedef {{ stage: string, done: number, total: number, unit: string }} Progress
 * @typedef {{ model: string, tier: string, reason: string, device: string, dimension: number,
 *   maxTokens: number, stats: Record<string, number>, warnings: string[] }} Loaded
 * @typedef {{ data: Float32Array<ArrayBuffer>, rows: number, columns: number, ms: number }} Embedded
 * @typedef {{ signature: string, count: number, default: string, chosen: string, gain: number,
 *   times_ms: Record<string, number> }} Finding
 * @typedef {{ findings: Finding[], improved: number, known: number, skipped: string[],
 *   wrong: string[], spent_s: number }} Tuned
 *
 * @typedef {{ id: number, type: "load", model: string, tier: string }} LoadRequest
 * @typedef {{ id: number, type: "embed", texts: string[] }} EmbedRequest
 * @typedef {{ id: number, type: "cache", action: string, locations: string[] | null }} CacheRequest
 * @typedef {{ id: number, type: "stats" | "cancel" | "close" }} PlainRequest
 * @typedef {{ id: number, type: "tune", budgetS: number }} TuneRequest
 * @typedef {LoadRequest | CacheRequest | EmbedRequest | TuneRequest | PlainRequest} Request
 *
 * @typedef {{ type: "progress" } & Progress} ProgressMessage
 * @typedef {{ type: "result", id: number, value: any }} ResultMessage
 * @typedef {{ type: "error", id: number, fault: Fault }} ErrorMessage
 * @typedef {ProgressMessage | ResultMessage | ErrorMessage} Answer
 */

/** An error that the worker told. */
export class BasculeError extends Error {
  /** @param {Fault} fault */
  constructor({ category, what, hint }) {
    super(hint ? `${what} ${hint}` : what);
    this.name = "BasculeError";
    this.category = category;
    this.what = what;
    this.hint = hint;
  }
}

/** @param {unknown} error @returns {Fault} */
export function faultOf(error) {
  const what = error instanceof Error ? error.message : String(error);
  return { category: "page", what, hint: "Try again; the browser's console may say more." };
}
