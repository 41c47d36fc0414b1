// Commands that are encoded and not submitted yet. It imports nothing (see gpu.js).

// Between two empty submissions: this share of the time that was waited so far, within bounds.
const SHARE = 1 / 8;
const MIN_MS = 1;
const MAX_MS = 16;

/**
 * Submits encoded commands in a microtask: one submission serves a replay and the read that mostly
 * follows it, and the device starts when Python returns.
 */
export class Submission {
  #device;
  #faults;
  /** Resolves when the device has accepted or rejected the last submission. */
  answered = Promise.resolve();
  /** Encoded commands that are not submitted yet. @type {GPUCommandEncoder | null} */
  #pending = null;
  #nWaiting = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {GPUDevice} device @param {import("./faults.js").Faults} faults */
  constructor(device, faults) {
    this.#device = device;
    this.#faults = faults;
  }

  encoder() {
    if (!this.#pending) {
      this.#pending = this.#device.createCommandEncoder();
      queueMicrotask(() => this.flush());
    }
    return this.#pending;
  }

  /** Submit pending commands. Everything that uses the queue calls this first, to keep the order. */
  flush() {
    const encoder = this.#pending;
    if (!encoder) return;
    this.#pending = null;
    // An error scope resolves before a buffer of this submission is mapped; an event may fire after that.
    this.#device.pushErrorScope("validation");
    this.#device.queue.submit([encoder.finish()]);
    this.answered = this.#faults.noteScope();
  }

  /** Wait for work that was submitted. Firefox looks for what a device has finished every 100 ms, and with each
   * submission: so empty ones follow, the less often the longer it takes. @template T @param {Promise<T>} work @returns {Promise<T>} */
  async finished(work) {
    this.#nWaiting += 1;
    clearTimeout(this.#timer);
    this.#askAgain(performance.now());
    try {
      return await work;
    } finally {
      this.#nWaiting -= 1;
      if (!this.#nWaiting) clearTimeout(this.#timer);
    }
  }

  /** @param {number} began */
  #askAgain(began) {
    const waited = performance.now() - began;
    this.#timer = setTimeout(() => {
      try {
        this.#device.queue.submit([]);
      } catch {
        return; // the device was lost, which ends the work
      }
      this.#askAgain(began);
    }, Math.min(Math.max(SHARE * waited, MIN_MS), MAX_MS));
  }

  drop() {
    this.#pending = null;
  }
}
