// The progress of a load as one number that never decreases: each stage has a share of it.

import { megabytes } from "./dom.js";

/** @typedef {import("./protocol.js").Progress} Progress */

/** The name of each stage, and its share of a load from a nearby server.
 * @type {Record<string, { text: string, share: number }>} */
const STAGES = {
  python: { text: "Starting Python", share: 26 },
  package: { text: "Installing the package", share: 8 },
  config: { text: "Reading the model's settings", share: 2 },
  tokenizer: { text: "Loading the tokenizer", share: 4 },
  device: { text: "Asking for a device", share: 6 },
  pipelines: { text: "Compiling shaders", share: 6 },
  weights: { text: "Loading the weights", share: 48 },
};
/** Those before Python answers; later loads have none of them. */
const BOOT = ["python", "package"];
const MIN_MS = 1000;

/** One load: what was reported of it so far. */
export class LoadProgress {
  /** @type {Map<string, number>} from 0 to 1 */
  #done = new Map();
  #began = performance.now();
  #fraction = 0;
  #bytesBegan = 0;
  #firstBytes = 0;
  #bytes = 0;
  #totalBytes = 0;
  #streaming = false;
  #stage;
  #booted;

  /** @param {boolean} booted whether Python runs already */
  constructor(booted) {
    this.#booted = booted;
    this.#stage = booted ? "" : "python";
  }

  /** @param {Progress} progress */
  add({ stage, done, total, unit }) {
    // The weights are fetched while Python starts: as bytes they are the same.
    const name = stage === "prefetch" ? "weights" : stage;
    if (!(name in STAGES)) return;
    if (stage !== "prefetch") this.#stage = name;
    if (name === "weights") this.#streaming = done < total;
    this.#raise(name, total ? done / total : 0);
    if (stage !== "prefetch" && !BOOT.includes(name)) for (const each of BOOT) this.#raise(each, 1);
    if (name === "weights" && unit === "bytes" && total) this.#addBytes(done, total);
    const stages = Object.entries(STAGES).filter(([each]) => !this.#booted || !BOOT.includes(each));
    const all = stages.reduce((sum, [, { share }]) => sum + share, 0);
    const reached = stages.reduce((sum, [each, { share }]) => sum + share * (this.#done.get(each) ?? 0), 0);
    this.#fraction = Math.max(this.#fraction, Math.min(1, reached / all));
  }

  /** @param {string} stage @param {number} fraction */
  #raise(stage, fraction) {
    this.#done.set(stage, Math.min(1, Math.max(fraction, this.#done.get(stage) ?? 0)));
  }

  /** @param {number} done @param {number} total */
  #addBytes(done, total) {
    if (!this.#bytesBegan) {
      this.#bytesBegan = performance.now();
      this.#firstBytes = done;
    }
    this.#bytes = Math.max(this.#bytes, done);
    this.#totalBytes = Math.max(this.#totalBytes, total);
  }

  /** Whether Python is still to start. */
  get booting() {
    return BOOT.includes(this.#stage);
  }

  /** From 0 to 1. */
  get fraction() {
    return this.#fraction;
  }

  /** The current stage. The weights stream beside most other stages, and take longer. */
  get stage() {
    const stage = this.#streaming && !this.booting ? "weights" : this.#stage;
    return STAGES[stage]?.text ?? "Loading";
  }

  /** Percent, bytes, remaining time. */
  get text() {
    const parts = [`${Math.floor(100 * this.#fraction)}%`];
    if (this.#totalBytes) parts.push(`${(this.#bytes / 1e6).toFixed(1)} of ${megabytes(this.#totalBytes)}`);
    const remaining = this.#remaining();
    if (remaining) parts.push(remaining);
    return parts.join(", ");
  }

  #remaining() {
    const now = performance.now();
    const rate = (this.#bytes - this.#firstBytes) / (now - this.#bytesBegan);
    const byBytes = rate > 0 ? (this.#totalBytes - this.#bytes) / rate : 0;
    return timeRemaining(now - this.#began, this.#fraction, byBytes);
  }
}

/** The remaining time in words, from the elapsed time; "" where it is too early to estimate.
 * @param {number} elapsedMs @param {number} fraction @param {number} [minMs] known by other means */
export function timeRemaining(elapsedMs, fraction, minMs = 0) {
  if (elapsedMs < MIN_MS || fraction < 0.03) return "";
  const seconds = Math.max((elapsedMs * (1 - fraction)) / fraction, minMs) / 1000;
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}
