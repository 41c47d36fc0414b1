// Errors of the device: invalid commands, reported with their shader, and out of memory. It imports
// nothing (see gpu.js).

/** @typedef {import("./tape.js").Tape} Tape */

/** An error with facts for Python. `nbytes` is -1 where it is unknown. */
export class Fault extends Error {
  /** @param {string} message @param {{ kind?: "memory" | "", nbytes?: number, label?: string }} facts */
  constructor(message, { kind = "", nbytes = -1, label = "" } = {}) {
    super(message);
    this.kind = kind;
    this.nbytes = nbytes;
    this.label = label;
  }
}

// The labels of the bridge's buffers: a message about one can be traced to its shader.
const BUFFER = /buffer #\d+/;
const INVALID = /invalid|destroyed/i;
const SHADER = /[\w/-]+\.wgsl/;

export class Faults {
  #device;
  #count = 0;
  /** Allocations that the device has not confirmed yet. @type {Map<GPUBuffer, Promise<void>>} */
  #pending = new Map();
  /** Buffers that it had no memory for, with its message. @type {Map<GPUBuffer, string>} */
  #refused = new Map();
  /** Labels of such buffers that were destroyed: later errors about them are ignored.
   * @type {Set<string>} */
  #dropped = new Set();
  /** @type {GPUError | null} */
  #first = null;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
    device.addEventListener("uncapturederror", ({ error }) => this.#note(error));
  }

  /** Pop the innermost error scope, and note its error. @returns {Promise<void>} */
  noteScope() {
    return this.#device.popErrorScope().then(
      (error) => this.#note(error),
      () => {}, // the device is gone, which is reported elsewhere
    );
  }

  get any() {
    return this.#first !== null;
  }

  /** Create a buffer; `granted` tells whether the device had memory for it.
   * @param {GPUBufferDescriptor} descriptor */
  create(descriptor) {
    this.#count += 1;
    this.#device.pushErrorScope("out-of-memory");
    const buffer = this.#device.createBuffer({ ...descriptor, label: `buffer #${this.#count}` });
    const answer = this.#device.popErrorScope().then(
      (error) => {
        if (error && this.#pending.has(buffer)) this.#refused.set(buffer, error.message);
      },
      () => {}, // the device is gone, which is reported elsewhere
    );
    this.#pending.set(buffer, answer);
    answer.then(() => this.#pending.delete(buffer));
    return buffer;
  }

  /** Wait for the device to confirm these; throws where it had no memory for one. @param {GPUBuffer[]} buffers */
  async granted(buffers) {
    await Promise.all(buffers.map((buffer) => this.#pending.get(buffer)));
    const refused = buffers.find((buffer) => this.#refused.has(buffer));
    if (refused) throw this.#outOfMemory(refused);
  }

  /** Destroy a buffer and forget its state. @param {GPUBuffer} buffer */
  destroy(buffer) {
    this.#pending.delete(buffer);
    if (this.#refused.delete(buffer)) {
      this.#dropped.add(buffer.label);
      if (this.#first && bufferIn(this.#first.message) === buffer.label) this.#first = null;
    }
    buffer.destroy();
  }

  /** The first error since the last call, or null. @param {Iterable<Tape>} tapes */
  async take(tapes) {
    // An invalid command invalidates others (its encoder, its submission): a round trip collects all of
    // these errors, so that the next read does not report them again.
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
    if (error && !this.#dropped.has(bufferIn(error.message))) this.#first ??= error;
  }

  /** @param {GPUBuffer} buffer */
  #outOfMemory(buffer) {
    return new Fault(this.#refused.get(buffer) ?? "", { kind: "memory", nbytes: buffer.size });
  }

  /** The shader file that a message is about; empty where encoding each dispatch shows none.
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
