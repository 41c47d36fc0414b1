// What the device refuses: commands, reported with their shader, and memory. It imports
// nothing (see gpu.js).

/** @typedef {import("./tape.js").Tape} Tape */

/** An error that says more than its message. `nbytes` is -1 where nobody knows. */
export class Fault extends Error {
  /** @param {string} message @param {{ kind?: "memory" | "", nbytes?: number, label?: string }} facts */
  constructor(message, { kind = "", nbytes = -1, label = "" } = {}) {
    super(message);
    this.kind = kind;
    this.nbytes = nbytes;
    this.label = label;
  }
}

// What the bridge calls its buffers: whatever the device says of one can be traced to its shader.
const BUFFER = /buffer #\d+/;
const INVALID = /invalid|destroyed/i;
const SHADER = /[\w/-]+\.wgsl/;

export class Faults {
  #device;
  #count = 0;
  /** The device's answers that are still to come. @type {Map<GPUBuffer, Promise<void>>} */
  #asked = new Map();
  /** Buffers that it had no memory for, and its words. @type {Map<GPUBuffer, string>} */
  #refused = new Map();
  /** Labels of such buffers that nobody wants any more: what was on its way to them is no news.
   * @type {Set<string>} */
  #givenUp = new Set();
  /** @type {GPUError | null} */
  #first = null;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
    device.addEventListener("uncapturederror", ({ error }) => this.#note(error));
  }

  /** Close the innermost error scope; what it has caught counts as refused. @returns {Promise<void>} */
  noteScope() {
    return this.#device.popErrorScope().then(
      (error) => this.#note(error),
      () => {}, // the device is gone, which is reported elsewhere
    );
  }

  get any() {
    return this.#first !== null;
  }

  /** A buffer; the device reports later whether there is memory for it (`granted`).
   * @param {GPUBufferDescriptor} descriptor */
  create(descriptor) {
    this.#count += 1;
    this.#device.pushErrorScope("out-of-memory");
    const buffer = this.#device.createBuffer({ ...descriptor, label: `buffer #${this.#count}` });
    const answer = this.#device.popErrorScope().then(
      (error) => {
        if (error && this.#asked.has(buffer)) this.#refused.set(buffer, error.message);
      },
      () => {}, // the device is gone, which is reported elsewhere
    );
    this.#asked.set(buffer, answer);
    answer.then(() => this.#asked.delete(buffer));
    return buffer;
  }

  /** Throws where there was no memory for one of them. @param {GPUBuffer[]} buffers */
  async granted(buffers) {
    await Promise.all(buffers.map((buffer) => this.#asked.get(buffer)));
    const refused = buffers.find((buffer) => this.#refused.has(buffer));
    if (refused) throw this.#outOfMemory(refused);
  }

  /** Destroy a buffer, and what is known of it. @param {GPUBuffer} buffer */
  destroy(buffer) {
    this.#asked.delete(buffer);
    if (this.#refused.delete(buffer)) {
      this.#givenUp.add(buffer.label);
      if (this.#first && bufferIn(this.#first.message) === buffer.label) this.#first = null;
    }
    buffer.destroy();
  }

  /** The first thing that was refused since the last time, or null. @param {Iterable<Tape>} tapes */
  async take(tapes) {
    // One refused command drags others along (its encoder, its submission): a round trip collects
    // them all, so that the next read does not hear of them again.
    this.#device.pushErrorScope("validation");
    await this.#device.popErrorScope();
    const error = this.#first;
    this.#first = null;
    if (!error) return null;
    if (error instanceof GPUOutOfMemoryError) return new Fault(error.message, { kind: "memory" });
    // A buffer, or what it is part of, may be called invalid because there was no memory for it.
    const [refused] = this.#refused.keys();
    if (refused && INVALID.test(error.message)) return this.#outOfMemory(refused);
    return new Fault(error.message, { label: await this.#shaderOf(error.message, [...tapes]) });
  }

  /** @param {GPUError | null} error */
  #note(error) {
    if (error && !this.#givenUp.has(bufferIn(error.message))) this.#first ??= error;
  }

  /** @param {GPUBuffer} buffer */
  #outOfMemory(buffer) {
    return new Fault(this.#refused.get(buffer) ?? "", { kind: "memory", nbytes: buffer.size });
  }

  /** The shader file that a message is about; empty where even trying them all does not show it.
   * @param {string} message @param {Tape[]} tapes */
  async #shaderOf(message, tapes) {
    const named = SHADER.exec(message);
    if (named) return named[0];
    const label = bufferIn(message);
    for (const { groups } of tapes) {
      const user = groups.find(({ entries }) => entries.some(({ buffer }) => buffer.label === label));
      if (label && user) return user.label;
    }
    for (const tape of tapes) {
      const refused = await this.#refusedStep(tape);
      if (refused) return refused;
    }
    return "";
  }

  /** Encode every dispatch by itself, and submit none. @param {Tape} tape */
  async #refusedStep({ pipelines, bindGroups, steps }) {
    const answers = pipelines.map((pipeline, step) => {
      const [, group, x, y, z] = steps.subarray(5 * step, 5 * step + 5);
      this.#device.pushErrorScope("validation");
      const encoder = this.#device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroups[group]);
      pass.dispatchWorkgroups(x, y, z);
      pass.end();
      encoder.finish();
      return this.#device.popErrorScope();
    });
    const errors = await Promise.all(answers);
    return pipelines[errors.findIndex(Boolean)]?.label ?? "";
  }
}

/** @param {string} message */
function bufferIn(message) {
  return BUFFER.exec(message)?.[0] ?? "";
}
