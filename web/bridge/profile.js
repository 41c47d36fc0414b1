// Timestamps around each dispatch while a profile runs (py/bascule/backend/profile.py). It is imported
// only when one starts. It imports nothing (see gpu.js).

// WebGPU allows query sets of 4096; a dispatch takes two.
const SET_DISPATCHES = 2048;
const PAGE_NBYTES = 1 << 20;
// Dispatches past 32 MiB of timestamps (two million) are not timed.
const MAX_PAGES = 32;
const RESOLVE_ALIGNMENT = 256;
// Timestamps slow a pass by some percent: of a tape's runs the first is timed, then each 8th.
const TIMED_EACH = 8;
const WORDS_A_STEP = 5; // as tape.js has it

/**
 * A tape that was submitted: where its timestamps are, or when it was done; seconds since the start.
 * @typedef {{ at: number, pipelines: number[], page: number, offset: number, done: number | null }} Noted
 * @typedef {{ written: number, read: number, crossings: number }} Traffic
 */

/** The measurements of a device. */
export class Profile {
  #device;
  #began = performance.now();
  /** @type {(nbytes: number) => void} */
  #count;
  /** @type {GPUQuerySet[]} */
  #sets = [];
  /** @type {GPUBuffer[]} */
  #pages = [];
  #used = PAGE_NBYTES; // of the last page
  /** @type {Noted[]} */
  #noted = [];
  /** @type {Record<number, string>} */
  #labels = {};
  /** Name, label, start and seconds of each. @type {[number, string, number, number][]} */
  #compiled = [];
  /** @type {[number, number][]} */
  #memory = [];
  #untimed = 0;
  /** The number of runs of each tape. @type {WeakMap<import("./tape.js").Tape, number>} */
  #runs = new WeakMap();
  timed;

  /** @param {GPUDevice} device @param {(nbytes: number) => void} count gets the bytes allocated and freed */
  constructor(device, count) {
    this.#device = device;
    this.#count = count;
    this.timed = device.features.has("timestamp-query");
  }

  get now() {
    return (performance.now() - this.#began) / 1e3;
  }

  /** @param {number} nbytes */
  noteMemory(nbytes) {
    this.#memory.push([this.now, nbytes]);
  }

  /** @param {number} name @param {string} label @param {number} start */
  noteCompiled(name, label, start) {
    this.#compiled.push([name, label, start, this.now - start]);
  }

  /**
   * Encode a tape with timestamps; false where it is to be encoded without.
   * @param {GPUCommandEncoder} encoder @param {import("./tape.js").Tape} tape
   */
  encode(encoder, tape) {
    const { bindGroups, pipelines, steps } = tape;
    const nbytes = 16 * pipelines.length;
    if (this.timed && !(this.#isSampled(tape) && this.#hasRoom(nbytes))) {
      this.#untimed += pipelines.length;
      return false;
    }
    const [page, offset] = [this.#pages.length - 1, this.#used];
    const names = pipelines.map((pipeline, s) => {
      const name = steps[s * WORDS_A_STEP];
      this.#labels[name] = pipeline.label;
      return name;
    });
    this.#noted.push({ at: this.now, pipelines: names, page, offset, done: null });
    if (!this.timed) return false;
    for (let s = 0, at = 0; at < steps.length; s++, at += WORDS_A_STEP) {
      const first = 2 * (s % SET_DISPATCHES);
      const pass = encoder.beginComputePass({
        timestampWrites: {
          querySet: this.#set(Math.floor(s / SET_DISPATCHES)),
          beginningOfPassWriteIndex: first,
          endOfPassWriteIndex: first + 1,
        },
      });
      pass.setPipeline(pipelines[s]);
      pass.setBindGroup(0, bindGroups[steps[at + 1]]);
      pass.dispatchWorkgroups(steps[at + 2], steps[at + 3], steps[at + 4]);
      pass.end();
    }
    for (let s = 0; s < pipelines.length; s += SET_DISPATCHES) {
      const count = 2 * Math.min(SET_DISPATCHES, pipelines.length - s);
      const set = this.#set(Math.floor(s / SET_DISPATCHES));
      encoder.resolveQuerySet(set, 0, count, this.#pages[page], offset + 16 * s);
    }
    this.#used += Math.ceil(nbytes / RESOLVE_ALIGNMENT) * RESOLVE_ALIGNMENT;
    return true;
  }

  /** Without timestamps: note when the queue has finished the last tape. */
  encoded() {
    const noted = this.#noted.at(-1);
    if (this.timed || !noted) return;
    // The submission is a microtask that was queued before this one (submission.js).
    queueMicrotask(() => {
      const done = this.#device.queue.onSubmittedWorkDone();
      done.then(() => (noted.done = this.now)).catch(() => {}); // a lost device raises its own error
    });
  }

  /** Wait for the submitted work, return the measurements as JSON, and free the buffers.
   * @param {Traffic} traffic */
  async finish(traffic) {
    await this.#device.queue.onSubmittedWorkDone();
    const seconds = this.now;
    const pages = await Promise.all(this.#pages.map((page) => this.#read(page)));
    const base = pages.length ? pages[0][0] : 0n;
    const submissions = this.#noted.map(({ at, pipelines, page, offset, done }) => {
      const at64 = offset / 8;
      /** @type {Iterable<bigint>} */
      const ticks = page < 0 ? [] : pages[page].subarray(at64, at64 + 2 * pipelines.length);
      return { at, pipelines, ticks: Array.from(ticks, (tick) => Number(tick - base)), done };
    });
    this.close();
    const [labels, compiled, memory] = [this.#labels, this.#compiled, this.#memory];
    const { timed } = this;
    const untimed = this.#untimed;
    return JSON.stringify({ timed, seconds, submissions, labels, compiled, memory, untimed, ...traffic });
  }

  close() {
    for (const page of this.#pages) {
      this.#count(-page.size);
      page.destroy();
    }
    this.#pages = [];
    for (const set of this.#sets) set.destroy();
    this.#sets = [];
  }

  /** Whether this run of a tape is timed. @param {import("./tape.js").Tape} tape */
  #isSampled(tape) {
    const runs = this.#runs.get(tape) ?? 0;
    this.#runs.set(tape, runs + 1);
    return runs % TIMED_EACH === 0;
  }

  /** @param {number} nbytes */
  #hasRoom(nbytes) {
    if (nbytes > PAGE_NBYTES) return false;
    if (this.#used + nbytes <= PAGE_NBYTES) return true;
    if (this.#pages.length === MAX_PAGES) return false;
    const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
    this.#pages.push(this.#device.createBuffer({ size: PAGE_NBYTES, usage }));
    this.#count(PAGE_NBYTES);
    this.#used = 0;
    return true;
  }

  /** @param {number} index */
  #set(index) {
    return (this.#sets[index] ??= this.#device.createQuerySet({
      type: "timestamp",
      count: 2 * SET_DISPATCHES,
    }));
  }

  /** @param {GPUBuffer} page @returns {Promise<BigUint64Array>} */
  async #read(page) {
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = this.#device.createBuffer({ size: page.size, usage });
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(page, 0, staging, 0, page.size);
    this.#device.queue.submit([encoder.finish()]);
    try {
      await staging.mapAsync(GPUMapMode.READ);
      return new BigUint64Array(staging.getMappedRange().slice(0));
    } finally {
      staging.destroy();
    }
  }
}
