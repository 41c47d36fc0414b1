// Tuning while the page is idle: in short slices, stopped by any input.

/** @typedef {import("./client.js").BasculeClient} BasculeClient */

const QUIET_MS = 20_000;
const SLICE_S = 5;
const MAX_SLICES = 12;

/** Measures which shaders are fastest on this machine, a slice at a time. */
export class IdleTuner {
  #client;
  #quietMs;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #slices = 0;
  #users = 0;
  #running = false;

  /** @param {BasculeClient} client @param {number} [quietMs] without any use, before it begins */
  constructor(client, quietMs = QUIET_MS) {
    this.#client = client;
    this.#quietMs = quietMs;
    for (const kind of ["pointerdown", "keydown", "visibilitychange"]) {
      document.addEventListener(kind, () => this.#restart());
    }
  }

  /** Run a user's request, then wait for the next idle time.
   * @template T @param {() => Promise<T>} work */
  async during(work) {
    this.#users += 1;
    await this.#stop();
    try {
      return await work();
    } finally {
      this.#users -= 1;
      this.#start();
    }
  }

  /** Never again. */
  end() {
    this.#slices = MAX_SLICES;
    clearTimeout(this.#timer);
  }

  /** Begin once it has been quiet for a while. A tier without shaders has nothing to tune. */
  #start() {
    clearTimeout(this.#timer);
    if (this.#users || !this.#client.loaded?.tier.startsWith("webgpu") || this.#slices >= MAX_SLICES) return;
    this.#timer = setTimeout(() => this.#slice(), this.#quietMs);
  }

  async #stop() {
    clearTimeout(this.#timer);
    if (this.#running) await this.#client.cancel().catch(() => {});
  }

  #restart() {
    this.#stop();
    this.#start();
  }

  async #slice() {
    if (document.visibilityState !== "visible") return;
    if (this.#client.makesSnapshot) return this.#start(); // measures nothing beside that
    this.#slices += 1;
    this.#running = true;
    try {
      const { skipped } = await this.#client.tune(SLICE_S);
      if (!skipped.length) this.#slices = MAX_SLICES; // all is known
    } catch {
      // it was stopped, or the device was lost, which the next use of the model reports
    } finally {
      this.#running = false;
    }
    this.#start();
  }
}
