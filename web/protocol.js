// The messages between the page and its worker.

/**
 * @typedef {{ category: string, what: string, hint: string }} Fault
 * @typedef {{ stage: string, done: number, total: number, unit: string }} Progress
 * @typedef {{ kind: "sentence-encoder", dimension: number, maxTokens: number }} Encoder
 * @typedef {{ kind: "classifier", labels: string[], maxTokens: number }} Classifier
 * @typedef {{ kind: "language-model", maxLength: number, canChat: boolean }} LanguageModel
 * @typedef {{ kind: "speech-model", languages: string[] }} SpeechModel
 * @typedef {{ kind: "voice-activity" }} VoiceActivityModel
 * @typedef {{ kind: "image-model", labels: string[], dimension: number }} ImageModel
 * @typedef {{ kind: "image-text-model", dimension: number, maxTokens: number }} ImageTextModel
 * @typedef {{ tier: string, refused: string, expected_ms: number | null, source: string }} Considered
 * @typedef {{ subject: string, chosen: string, reason: string, warning: string,
 *   considered: Considered[] }} Decision
 * @typedef {{ sample: string, tolerance: number, deviation: number | null, steps: string[],
 *   remembered: string, ms: number }} Proof
 * @typedef {{ model: string, tier: string, reason: string, device: string, decision: Decision | null,
 *   proof: Proof, stats: Record<string, number>, warnings: string[] } & (Encoder | Classifier | LanguageModel | SpeechModel | VoiceActivityModel | ImageModel | ImageTextModel)} Loaded
 * @typedef {{ data: Float32Array<ArrayBuffer>, rows: number, columns: number, ms: number,
 *   tokens?: number[], truncated?: number[] }} Embedded
 * @typedef {{ scores: number[], n_tokens: number[], truncated: number[] }} Ranking
 * @typedef {{ label: string, probability: number, probabilities: Record<string, number>,
 *   n_tokens: number, truncated: boolean }} Classification
 *
 * A request to a language model, and its result; py/bascule/page/text.py has all options.
 * @typedef {{ type: "text", text: string }} TextPart
 * @typedef {{ role: string, content: string | TextPart[] | null }} Message
 * @typedef {{ temperature?: number, top_k?: number, top_p?: number, min_p?: number,
 *   repetition_penalty?: number, penalty_window?: number, seed?: number }} Sampling
 * @typedef {Sampling & { sampling?: Sampling, greedy?: boolean, max_new_tokens?: number,
 *   max_tokens?: number, steps_in_flight?: number, stop?: string | string[],
 *   overflow?: "error" | "slide" }} Options
 * @typedef {"end" | "stop" | "length" | "context"} StopReason
 * @typedef {{ text: string, ids: number[], prompt_ids: number[], stop_reason: StopReason,
 *   stats: Record<string, number> }} Generation
 *
 * What a speech model is asked, and answers; times are seconds.
 * @typedef {{ language?: string, task?: string, timestamps?: boolean, seed?: number }} SpeechOptions
 * @typedef {{ start: number, end: number, text: string, no_speech_probability: number,
 *   mean_log_probability: number }} Segment
 * @typedef {{ text: string, language: string, duration: number, segments: Segment[], srt: string,
 *   vtt: string }} Transcription
 *
 * @typedef {{ signature: string, count: number, default: string, chosen: string, gain: number,
 *   times_ms: Record<string, number> }} Finding
 * @typedef {{ findings: Finding[], improved: number, known: number, skipped: string[],
 *   wrong: string[], spent_s: number }} Tuned
 *
 * The measurements of each tier; py/bascule/observe/tier_report.py describes the fields.
 * @typedef {{ value: number | string | boolean | null, source: string }} Fact
 * @typedef {Record<string, Fact>} Facts
 * @typedef {{ tier: string, label: string, refused: string, facts: Facts, figures: Facts }} TierFigures
 * @typedef {{ format: string, version: number, quick: boolean, model: string, environment: Facts,
 *   tiers: TierFigures[], units: Record<string, string>,
 *   slowdowns: Record<string, Record<string, number>> }} TierReport
 *
 * @typedef {{ id: number, type: "load", model: string, tier: string }} LoadRequest
 * @typedef {{ id: number, type: "embed", texts: string[] }} EmbedRequest
 * @typedef {{ id: number, type: "rank", query: string, texts: string[] }} RankRequest
 * @typedef {{ id: number, type: "classify", texts: (string | [string, string])[] }} ClassifyRequest
 * @typedef {{ id: number, type: "chat", input: Message[], options: Options }} ChatRequest
 * @typedef {{ id: number, type: "generate", input: string | number[], options: Options }} GenerateRequest
 * @typedef {{ id: number, type: "logits", ids: number[] }} LogitsRequest
 * @typedef {{ id: number, type: "transcribe", samples: Float32Array<ArrayBuffer>, rate: number,
 *   options: SpeechOptions }} TranscribeRequest
 * @typedef {"add" | "search" | "like" | "classify" | "remove"} PictureAction
 * @typedef {{ id: number, type: "pictures", action: PictureAction, options: Record<string, unknown>,
 *   pixels: Uint8ClampedArray<ArrayBuffer> | null }} PicturesRequest
 * @typedef {{ id: number, type: "cache", action: string, locations: string[] | null }} CacheRequest
 * @typedef {{ id: number, type: "stats" | "cancel" | "close" }} PlainRequest
 * @typedef {{ id: number, type: "tune", budgetS: number }} TuneRequest
 * @typedef {{ id: number, type: "bench", model: string, quick: boolean, environment: Facts }} BenchRequest
 * @typedef {ChatRequest | GenerateRequest} WritingRequest
 * @typedef {WritingRequest | LogitsRequest | EmbedRequest | RankRequest | ClassifyRequest | TranscribeRequest | PicturesRequest} ModelRequest
 * @typedef {LoadRequest | ModelRequest | CacheRequest | TuneRequest | BenchRequest | PlainRequest} Request
 *
 * With an id, progress is that request's own. `tokens` counts those of all pieces so far.
 * @typedef {{ type: "progress", id?: number } & Progress} ProgressMessage
 * @typedef {{ type: "piece", id: number, text: string, tokens: number }} PieceMessage
 * @typedef {{ type: "segment", id: number, segment: Segment }} SegmentMessage
 * @typedef {{ type: "tier", id: number, figures: TierFigures }} TierMessage
 * @typedef {{ type: "result", id: number, value: any }} ResultMessage
 * @typedef {{ type: "error", id: number, fault: Fault }} ErrorMessage
 * Python has started, from whose snapshot ("" for none).
 * @typedef {{ type: "booted", snapshot: "site" | "browser" | "" }} BootedMessage
 * @typedef {BootedMessage | ProgressMessage | PieceMessage | SegmentMessage | TierMessage | ResultMessage | ErrorMessage} Answer
 */

/** An error that the worker posted. */
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

/**
 * The facts of any error: one of ours, one that Python raised through Pyodide, or another.
 * @param {unknown} error
 * @param {any} [pyodide] of the worker or page that Python runs in, where `error` may be a PythonError
 * @returns {Fault}
 */
export function faultOf(error, pyodide) {
  if (error instanceof BasculeError) return { category: error.category, what: error.what, hint: error.hint };
  const what = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && error.name === "PythonError") {
    return raisedFault(what, pyodide) ?? { category: "python", what: lastLine(what), hint: "" };
  }
  return { category: "page", what, hint: "Try again; the browser's console may say more." };
}

/** The BasculeError behind a PythonError: Pyodide stores the last one in sys.last_exc.
 * @param {string} traceback @param {any} pyodide @returns {Fault | null} */
function raisedFault(traceback, pyodide) {
  const raised = pyodide?.pyimport("sys").last_exc;
  if (typeof raised?.category !== "string" || typeof raised.what !== "string") return null;
  const { category, what, hint } = raised;
  raised.destroy();
  return traceback.includes(what) ? { category, what, hint: String(hint) } : null;
}

/** @param {string} traceback */
function lastLine(traceback) {
  return traceback.trimEnd().split("\n").at(-1) ?? "";
}
