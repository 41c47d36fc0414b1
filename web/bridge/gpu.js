// The page's side of waist 2 (py/bascule/backend/webgpu/gpu.py): a WebGPU device whose objects are
// named by integers. Only integers, strings, typed arrays and promises cross; it knows no op, no
// model and no kernel. It imports nothing, so that Python can load it from the wheel by a blob: URL.

/**
 * A Python object that JavaScript holds for the length of a call.
 * @typedef {{ getBuffer(type: "u8"): { data: Uint8Array<ArrayBuffer>, release(): void } }} PyBuffer
 * @typedef {{ bindGroups: GPUBindGroup[], pipelines: GPUComputePipeline[], steps: Int32Array }} Tape
 * @typedef {{ pipeline: GPUComputePipeline, bindings: string }} Pipeline
 * @typedef {{ group: GPUBindGroupLayout, whole: GPUPipelineLayout }} Layout
 * @typedef {typeof import("./tape.js")} TapeModule
 */

/** @type {Record<string, GPUBufferBindingType>} */
const BINDING_TYPES = { u: "uniform", r: "read-only-storage", w: "storage" };
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|warp|basic render/i;
const STAGING_KEPT_NBYTES = 64 << 20;
const INDEX_BITS = 20;

/**
 * A table of live objects. A name is an index in the low bits and a generation in the high ones, so
 * that one that was freed is refused even after its index is reused. The twin of handles.py.
 * @template T
 */
export class Handles {
  #kind;
  /** @type {(T | null)[]} */
  #objects = [null];
  #generations = [0];
  /** @type {number[]} */
  #free = [];

  /** @param {string} kind */
  constructor(kind) {
    this.#kind = kind;
  }

  get count() {
    return this.#objects.length - 1 - this.#free.length;
  }

  /** @param {T} item */
  add(item) {
    const index = this.#free.pop() ?? this.#objects.length;
    this.#objects[index] = item;
    this.#generations[index] ??= 0;
    return (this.#generations[index] << INDEX_BITS) | index;
  }

  /** @param {number} name */
  get(name) {
    const index = name & ((1 << INDEX_BITS) - 1);
    const item = this.#generations[index] === name >> INDEX_BITS ? this.#objects[index] : null;
    if (!item) throw new Error(`no live ${this.#kind} is named ${name}: it was freed or never made.`);
    return item;
  }

  /** @param {number} name */
  remove(name) {
    const item = this.get(name);
    const index = name & ((1 << INDEX_BITS) - 1);
    this.#objects[index] = null;
    this.#generations[index] = (this.#generations[index] + 1) & ((1 << (31 - INDEX_BITS)) - 1);
    this.#free.push(index);
    return item;
  }

  /** @returns {T[]} */
  live() {
    return this.#objects.filter((item) => item !== null);
  }
}

/** A device and its queue. */
export class Gpu {
  #device;
  #tapes;
  /** @type {Handles<GPUBuffer>} */
  #buffers = new Handles("buffer");
  /** @type {Handles<Pipeline>} */
  #pipelines = new Handles("pipeline");
  /** @type {Handles<Tape>} */
  #recorded = new Handles("tape");
  /** @type {Map<string, Layout>} */
  #layouts = new Map();
  /** @type {Map<number, GPUBuffer[]>} */
  #staging = new Map();
  #stagingNbytes = 0;
  #firstError = "";
  lost = "";
  allocated = 0;
  crossings = 0;

  /** @param {GPUDevice} device @param {TapeModule} tapes @param {string} info */
  constructor(device, tapes, info) {
    this.#device = device;
    this.#tapes = tapes;
    this.info = info;
    device.lost.then((why) => (this.lost ||= why.message || why.reason));
    device.addEventListener("uncapturederror", (event) => {
      this.#firstError ||= event.error.message;
    });
  }

  get queue() {
    return this.#device.queue;
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
    this.allocated += nbytes;
    return this.#buffers.add(buffer);
  }

  /** @param {number} name */
  free(name) {
    this.#enter();
    const buffer = this.#buffers.remove(name);
    this.allocated -= buffer.size;
    buffer.destroy();
  }

  /** @param {number} name @param {number} offset @param {PyBuffer} data */
  write(name, offset, data) {
    this.#enter();
    const buffer = this.#buffers.get(name);
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
    this.queue.writeBuffer(this.#buffers.get(name), offset, data);
  }

  /** The copy is queued now; the promise waits for it and fills `into`.
   * @param {number} name @param {number} offset @param {number} nbytes @param {PyBuffer} into */
  read(name, offset, nbytes, into) {
    this.#enter();
    const source = this.#buffers.get(name);
    const size = (nbytes + 3) & ~3;
    const staging = this.#takeStaging(size);
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, offset, staging, 0, size);
    this.queue.submit([encoder.finish()]);
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
    const view = writes.getBuffer("u8");
    try {
      this.#tapes.write(this.queue, view.data, (buffer) => this.#buffers.get(buffer));
    } finally {
      view.release();
    }
    const encoder = this.#device.createCommandEncoder();
    this.#tapes.encode(encoder, tape);
    this.queue.submit([encoder.finish()]);
  }

  destroy() {
    this.lost ||= "destroyed by the program";
    for (const buffer of this.#buffers.live()) buffer.destroy();
    for (const kept of this.#staging.values()) for (const buffer of kept) buffer.destroy();
    this.#staging.clear();
    this.#buffers = new Handles("buffer");
    this.#recorded = new Handles("tape");
    this.#pipelines = new Handles("pipeline");
    this.allocated = 0;
    this.#device.destroy();
  }

  #enter() {
    this.crossings += 1;
    if (this.lost) throw new Error(this.lost);
  }

  /** @param {GPUBuffer} staging @param {number} nbytes @param {PyBuffer} into */
  async #finishRead(staging, nbytes, into) {
    try {
      await staging.mapAsync(GPUMapMode.READ);
    } catch (error) {
      throw new Error(this.lost || this.#takeError() || String(error));
    }
    const view = into.getBuffer("u8");
    view.data.set(new Uint8Array(staging.getMappedRange(), 0, nbytes));
    view.release();
    staging.unmap();
    this.#keepStaging(staging);
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

  /** @param {number} size */
  #takeStaging(size) {
    const kept = this.#staging.get(size)?.pop();
    if (kept) {
      this.#stagingNbytes -= size;
      return kept;
    }
    this.allocated += size;
    return this.#device.createBuffer({
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  /** @param {GPUBuffer} staging */
  #keepStaging(staging) {
    if (this.#stagingNbytes + staging.size > STAGING_KEPT_NBYTES) {
      this.allocated -= staging.size;
      staging.destroy();
      return;
    }
    this.#stagingNbytes += staging.size;
    this.#staging.set(staging.size, [...(this.#staging.get(staging.size) ?? []), staging]);
  }
}

/**
 * Open a device with the adapter's own limits. Throws an Error whose message says what is missing.
 * @param {TapeModule} tapes @param {string} limitsJson @param {string} featuresJson
 */
export async function createGpu(tapes, limitsJson, featuresJson) {
  if (!globalThis.navigator?.gpu) {
    throw new Error(
      globalThis.isSecureContext === false
        ? "the page is not a secure context (WebGPU needs https or localhost)"
        : "this browser has no navigator.gpu",
    );
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("the browser has WebGPU and found no adapter");
  /** @type {Record<string, number>} */
  const limits = {};
  for (const name of JSON.parse(limitsJson)) {
    const value = /** @type {Record<string, any>} */ (/** @type {unknown} */ (adapter.limits))[name];
    if (typeof value === "number") limits[name] = value;
  }
  const features = JSON.parse(featuresJson).filter((/** @type {string} */ f) => adapter.features.has(f));
  const device = await adapter.requestDevice({ requiredLimits: limits, requiredFeatures: features });
  const told = adapter.info;
  const words = [told.vendor, told.architecture, told.device, told.description];
  const info = {
    vendor: told.vendor,
    architecture: told.architecture,
    device: told.device,
    description: told.description,
    software: Boolean(told.isFallbackAdapter) || words.some((word) => SOFTWARE.test(word)),
    features,
    limits,
    subgroups_enable: features.includes("subgroups") && (await compiles(device)),
  };
  return new Gpu(device, tapes, JSON.stringify(info));
}

/** Whether the compiler knows the directive: Tint wants it before the builtins, naga refuses it.
 * @param {GPUDevice} device */
async function compiles(device) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: "enable subgroups;" });
  return (await device.popErrorScope()) === null;
}
