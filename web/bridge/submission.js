// Commands that are encoded and not submitted yet. It imports nothing (see gpu.js).

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

  drop() {
    this.#pending = null;
  }
}
