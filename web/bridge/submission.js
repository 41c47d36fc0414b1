// Commands on their way to the queue. It imports nothing (see gpu.js).

/**
 * What is encoded is submitted at the end of the caller's turn: one submission serves a replay and
 * the read that mostly follows it, and the device starts when Python has nothing left to do.
 */
export class Submission {
  #device;
  #faults;
  /** Fulfils when the device has accepted or refused the last submission. */
  answered = Promise.resolve();
  /** What is encoded and not submitted yet. @type {GPUCommandEncoder | null} */
  #pending = null;

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

  /** Submit what waits; whatever touches the queue calls this first, so that the order holds. */
  flush() {
    const encoder = this.#pending;
    if (!encoder) return;
    this.#pending = null;
    // A scope answers before a buffer of this submission is mapped; an event may come after that.
    this.#device.pushErrorScope("validation");
    this.#device.queue.submit([encoder.finish()]);
    this.answered = this.#faults.noteScope();
  }

  drop() {
    this.#pending = null;
  }
}
