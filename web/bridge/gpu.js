// The page's side of waist 2 (py/bascule/backend/webgpu/gpu.py): a WebGPU device whose objects are
// named by integers. Only integers, strings, typed arrays and promises cross; it knows no op, no
// model and no kernel. It imports nothing, so that Python can load it from the wheel by a blob: URL.

/**
 * A Python object that JavaScript holds for the length of a call.
 * @typedef {{ getBuffer(type: "u8"): { data: Uint8Array<ArrayBuffer>, release(): void } }} PyBuffer
 * @typedef {{ bindGroups: GPUBindGroup[], pipelines: GPUComputePipeline[], steps: Int32Array }} Tape
 * @typedef {{ pipeline: GPUComputePipeline, bindings: string }} Pipeline
 * @typedef {{ group: GPUBindGroupLayout, whole: GPUPipelineLayout }} Layout
 * @typedef {{ handles: typeof import("./handles.js"), staging: typeof import("./staging.js"),
 *   tape: typeof import("./tape.js") }} Modules
 */

/** @type {Record<string, GPUBufferBindingType>} */
const BINDING_TYPES = { u: "uniform", r: "read-only-storage", w: "storage" };

/** A device and its queue. */
export class Gpu {
  #device;
  #tapes;
  #buffers;
  #pipelines;
  #recorded;
  #staging;
  /** @type {Map<string, Layout>} */
  #layouts = new Map();
  #bufferNbytes = 0;
  /** What is encoded and not submitted yet. @type {GPUCommandEncoder | null} */
  #pending = null;
  #firstError = "";
  lost = "";
  crossings = 0;

  /** @param {import("./device.js").Opened} opened @param {Modules} modules */
  constructor({ device, info }, { handles, staging, tape }) {
    this.#device = device;
    this.#tapes = tape;
    this.info = info;
    /** @type {import("./handles.js").Handles<GPUBuffer>} */
    this.#buffers = new handles.Handles("buffer");
    /** @type {import("./handles.js").Handles<Pipeline>} */
    this.#pipelines = new handles.Handles("pipeline");
    /** @type {import("./handles.js").Handles<Tape>} */
    this.#recorded = new handles.Handles("tape");
    this.#staging = new staging.Staging(device);
    device.lost.then((why) => (this.lost ||= why.message || why.reason));
    device.addEventListener("uncapturederror", (event) => {
      this.#firstError ||= event.error.message;
    });
  }

  get queue() {
    return this.#device.queue;
  }

  get allocated() {
    return this.#bufferNbytes + this.#staging.allocated;
  }

  get objects() {
    return this.#buffers.count + this.#recorded.count;
  }

  /** @param {number} nbytes @param {boolean} uniform */
  alloc(nbytes, uniform) {
    this.#enter();
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const usage = uniform ? UNIFORM | COPY_DST : STORAGE | COPY_SRC | COPY_DST;
    const buffer = this.#device.createBuffer({ size: nbytes, usage });
    this.#bufferNbytes += nbytes;
    return this.#buffers.add(buffer);
  }

  /** @param {number} name */
  free(name) {
    this.#enter();
    this.#flush();
    const buffer = this.#buffers.remove(name);
    this.#bufferNbytes -= buffer.size;
    buffer.destroy();
  }

  /** @param {number} name @param {number} offset @param {PyBuffer} data */
  write(name, offset, data) {
    this.#enter();
    const buffer = this.#buffers.get(name);
    this.#flush();
    // The view must not outlive this call: it dies when the WASM heap grows.
    const view = data.getBuffer("u8");
    try {
      this.queue.writeBuffer(buffer, offset, view.data);
    } finally {
      view.release();
    }
  }

  /**
   * For the fetcher: the same with bytes that are JavaScript's own.
   * @param {number} name @param {number} offset @param {Uint8Array<ArrayBuffer>} data
   */
  writeBytes(name, offset, data) {
    this.#flush();
    this.queue.writeBuffer(this.#buffers.get(name), offset, data);
  }

  /** The copy is queued now; the promise waits for it and fills `into`.
   * @param {number} name @param {number} offset @param {number} nbytes @param {PyBuffer} into */
  read(name, offset, nbytes, into) {
    this.#enter();
    const source = this.#buffers.get(name);
    const size = (nbytes + 3) & ~3;
    const staging = this.#staging.take(size);
    this.#encoder().copyBufferToBuffer(source, offset, staging, 0, size);
    return this.#finishRead(staging, nbytes, into);
  }

  /**
   * A pipeline's name, or a JSON list of [line, message] where the shader does not compile.
   * @param {string} wgsl @param {string} constants JSON @param {string} bindings @param {string} label
   * @returns {Promise<number | string>}
   */
  async pipeline(wgsl, constants, bindings, label) {
    this.#enter();
    const layout = this.#layout(bindings).whole;
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ code: wgsl, label });
    const compute = { module, entryPoint: "main", constants: JSON.parse(constants) };
    const making = this.#device.createComputePipelineAsync({ label, layout, compute });
    const scope = this.#device.popErrorScope();
    try {
      const pipeline = await making;
      await scope;
      return this.#pipelines.add({ pipeline, bindings });
    } catch (error) {
      const told = (await module.getCompilationInfo()).messages.filter((m) => m.type === "error");
      if (this.lost) throw new Error(this.lost);
      if (told.length) return JSON.stringify(told.map((m) => [m.lineNum, m.message]));
      const scoped = await scope;
      return JSON.stringify([[0, scoped?.message ?? String(error)]]);
    }
  }

  /** @param {PyBuffer} words */
  record(words) {
    this.#enter();
    const view = words.getBuffer("u8");
    const copy = new Int32Array(view.data.slice().buffer);
    view.release();
    return this.#recorded.add(
      this.#tapes.decode(copy, {
        buffer: (name) => this.#buffers.get(name),
        pipeline: (name) => this.#pipelines.get(name).pipeline,
        group: (pipeline, entries) => {
          const layout = this.#layout(this.#pipelines.get(pipeline).bindings).group;
          return this.#device.createBindGroup({ layout, entries });
        },
      }),
    );
  }

  /** @param {number} name */
  forget(name) {
    this.#enter();
    this.#recorded.remove(name);
  }

  /** @param {number} name @param {PyBuffer} writes */
  replay(name, writes) {
    this.#enter();
    const tape = this.#recorded.get(name);
    this.#flush();
    const view = writes.getBuffer("u8");
    try {
      this.#tapes.write(this.queue, view.data, (buffer) => this.#buffers.get(buffer));
    } finally {
      view.release();
    }
    this.#tapes.encode(this.#encoder(), tape);
  }

  destroy() {
    this.lost ||= "destroyed by the program";
    this.#pending = null;
    for (const buffer of this.#buffers.clear()) buffer.destroy();
    this.#recorded.clear();
    this.#pipelines.clear();
    this.#staging.destroy();
    this.#bufferNbytes = 0;
    this.#device.destroy();
  }

  /**
   * What is encoded is submitted at the end of the caller's turn: one submission serves a replay and
   * the read that mostly follows it, and the device starts when Python has nothing left to do.
   */
  #encoder() {
    if (!this.#pending) {
      this.#pending = this.#device.createCommandEncoder();
      queueMicrotask(() => this.#flush());
    }
    return this.#pending;
  }

  /** Submit what waits; whatever touches the queue calls this first, so that the order holds. */
  #flush() {
    const encoder = this.#pending;
    if (!encoder) return;
    this.#pending = null;
    this.queue.submit([encoder.finish()]);
  }

  #enter() {
    this.crossings += 1;
    if (this.lost) throw new Error(this.lost);
  }

  /** @param {GPUBuffer} staging @param {number} nbytes @param {PyBuffer} into */
  async #finishRead(staging, nbytes, into) {
    await null; // what is encoded has been submitted by now: its microtask was queued before this one
    try {
      await staging.mapAsync(GPUMapMode.READ);
    } catch (error) {
      throw new Error(this.lost || this.#takeError() || String(error));
    }
    const view = into.getBuffer("u8");
    view.data.set(new Uint8Array(staging.getMappedRange(), 0, nbytes));
    view.release();
    staging.unmap();
    this.#staging.give(staging);
    if (!this.#firstError) return;
    // One refused command drags others along (its encoder, its submission): a round trip collects
    // them all, so that the next read does not hear of them again.
    this.#device.pushErrorScope("validation");
    await this.#device.popErrorScope();
    throw new Error(this.#takeError());
  }

  #takeError() {
    const error = this.#firstError;
    this.#firstError = "";
    return error;
  }

  /** @param {string} bindings */
  #layout(bindings) {
    const known = this.#layouts.get(bindings);
    if (known) return known;
    const entries = [...bindings].flatMap((letter, binding) =>
      letter === "-"
        ? []
        : [{ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: BINDING_TYPES[letter] } }],
    );
    const group = this.#device.createBindGroupLayout({ entries });
    const whole = this.#device.createPipelineLayout({ bindGroupLayouts: [group] });
    const made = { group, whole };
    this.#layouts.set(bindings, made);
    return made;
  }
}

/** For Python, which has no `new`. @param {import("./device.js").Opened} opened
 * @param {Modules["handles"]} handles @param {Modules["staging"]} staging
 * @param {Modules["tape"]} tape */
export function createGpu(opened, handles, staging, tape) {
  return new Gpu(opened, { handles, staging, tape });
}
