// Commands on their way to the queue. It imports nothing (see gpu.js).

/**
 * What is encoded is submitted at the end of the caller's turn: one submission serves a replay and
 * the read that mostly follows it, and the device starts when Python has nothing left to do.
 */
export class Submission {
  #device;
  /** What is encoded and not submitted yet. @type {GPUCommandEncoder | null} */
  #pending = null;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
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
    this.#device.queue.submit([encoder.finish()]);
  }

  drop() {
    this.#pending = null;
  }
}
