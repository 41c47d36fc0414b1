// The page's side of waist 2 (py/bascule/backend/webgpu/gpu.py): a WebGPU device whose objects are
// named by integers. Only integers, strings, typed arrays and promises cross; it knows no op, no
// model and no kernel. It imports nothing, so that Python can load it from the wheel by a blob: URL.

/**
 * A Python object that JavaScript holds for the length of a call.
 * @typedef {{ getBuffer(type: "u8"): { data: Uint8Array<ArrayBuffer>, release(): void } }} PyBuffer
 * @typedef {import("./tape.js").Tape} Tape
 * @typedef {import("./pipelines.js").Pipeline} Pipeline
 * @typedef {{ handles: typeof import("./handles.js"), staging: typeof import("./staging.js"),
 *   tape: typeof import("./tape.js"), pipelines: typeof import("./pipelines.js"),
 *   submission: typeof import("./submission.js"), faults: typeof import("./faults.js"),
 *   canvasRead: typeof import("./canvas-read.js") }} Modules
 */

/** A device and its queue. */
export class Gpu {
  #device;
  #tapes;
  #buffers;
  #pipelines;
  #recorded;
  #staging;
  #compiler;
  #submission;
  #faults;
  #Fault;
  #CanvasReader;
  /** Reads without waiting; or a message why it cannot. @type {import("./canvas-read.js").CanvasReader | string} */
  #reader = "";
  /** Bytes of all buffers by kind. @type {Map<string, number>} */
  #kinds = new Map();
  /** The kind of each buffer, by handle. @type {Map<number, string>} */
  #kindOf = new Map();
  #peak = 0;
  #written = 0;
  #fetched = 0;
  #crossingsBefore = 0;
  /** @type {import("./profile.js").Profile | null} */
  #profile = null;
  /** @type {typeof import("./tape.js").encode} */
  #encode;
  #markedPeak = 0;
  #frees = 0;
  lost = "";
  crossings = 0;

  /** @param {import("./device.js").Opened} opened @param {Modules} modules */
  constructor({ device, info, asked }, modules) {
    const { handles, staging, tape, pipelines, submission, faults, canvasRead } = modules;
    this.#device = device;
    this.#tapes = tape;
    this.#encode = tape.encode;
    this.info = info;
    this.asked = asked;
    /** @type {import("./handles.js").Handles<GPUBuffer>} */
    this.#buffers = new handles.Handles("buffer");
    /** @type {import("./handles.js").Handles<Pipeline>} */
    this.#pipelines = new handles.Handles("pipeline");
    /** @type {import("./handles.js").Handles<Tape>} */
    this.#recorded = new handles.Handles("tape");
    this.#Fault = faults.Fault;
    this.#faults = new faults.Faults(device);
    this.#staging = new staging.Staging(this.#faults);
    this.#CanvasReader = canvasRead.CanvasReader;
    this.#compiler = new pipelines.Pipelines(device);
    this.#submission = new submission.Submission(device, this.#faults);
    device.lost.then((info) => (this.lost ||= info.message || info.reason));
  }

  get queue() {
    return this.#device.queue;
  }

  get allocated() {
    let nbytes = this.#staging.allocated;
    for (const each of this.#kinds.values()) nbytes += each;
    return nbytes;
  }

  /** MemoryUse (py/bascule/backend/memory.py) as JSON. */
  get memory() {
    const kinds = [...this.#kinds, ["staging", this.#staging.allocated]].filter(([, n]) => n);
    return JSON.stringify({
      now_nbytes: this.allocated,
      peak_nbytes: this.#peak,
      marked_peak_nbytes: this.#markedPeak,
      by_kind: Object.fromEntries(kinds),
    });
  }

  /** Count marked_peak_nbytes from now on. */
  markMemory() {
    this.#markedPeak = this.allocated;
  }

  #notePeak() {
    this.#peak = Math.max(this.#peak, this.allocated);
    this.#markedPeak = Math.max(this.#markedPeak, this.allocated);
  }

  /** Requested pipelines that had been compiled ahead. */
  get early() {
    return this.#compiler.early;
  }

  get objects() {
    return this.#buffers.count + this.#recorded.count;
  }

  /** @param {number} nbytes @param {boolean} uniform @param {string} kind under which it is counted */
  alloc(nbytes, uniform, kind) {
    this.#enter();
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const usage = uniform ? UNIFORM | COPY_DST : STORAGE | COPY_SRC | COPY_DST;
    const buffer = this.#faults.create({ size: nbytes, usage });
    this.#count(kind, nbytes);
    const name = this.#buffers.add(buffer);
    this.#kindOf.set(name, kind);
    return name;
  }

  /** Wait until the device confirms that it has memory for all of these; throws otherwise. @param {PyBuffer} names */
  async granted(names) {
    this.#enter();
    const view = names.getBuffer("u8");
    const copy = new Int32Array(view.data.slice().buffer);
    view.release();
    await this.#faults.granted(Array.from(copy, (name) => this.#buffers.get(name)));
    if (this.lost) throw new Error(this.lost);
  }

  /** Free buffers that are only cached for reuse; returns the bytes freed. */
  trim() {
    this.#enter();
    return this.#staging.trim();
  }

  /** @param {number} name */
  free(name) {
    this.#enter();
    this.#submission.flush();
    const buffer = this.#buffers.remove(name);
    this.#count(this.#kindOf.get(name) ?? "", -buffer.size);
    this.#kindOf.delete(name);
    this.#frees += 1;
    this.#faults.destroy(buffer);
  }

  /** @param {number} name @param {number} offset @param {PyBuffer} data */
  write(name, offset, data) {
    this.#enter();
    const buffer = this.#buffers.get(name);
    this.#submission.flush();
    // The view must not outlive this call: it dies when the WASM heap grows.
    const view = data.getBuffer("u8");
    try {
      this.queue.writeBuffer(buffer, offset, view.data);
      this.#written += view.data.byteLength;
    } finally {
      view.release();
    }
  }

  /**
   * As `write`, for the fetcher: the bytes are in JavaScript.
   * @param {number} name @param {number} offset @param {Uint8Array<ArrayBuffer>} data
   */
  writeBytes(name, offset, data) {
    this.#submission.flush();
    this.#written += data.byteLength;
    this.queue.writeBuffer(this.#buffers.get(name), offset, data);
  }

  /** Queue the copy now; the promise fills `into` when it is done.
   * @param {number} name @param {number} offset @param {number} nbytes @param {PyBuffer} into */
  read(name, offset, nbytes, into) {
    this.#enter();
    const source = this.#buffers.get(name);
    const size = (nbytes + 3) & ~3;
    this.#fetched += nbytes;
    const staging = this.#staging.take(size);
    this.#notePeak();
    this.#submission.encoder().copyBufferToBuffer(source, offset, staging, 0, size);
    return this.#finishRead(staging, nbytes, into);
  }

  /** Wait until the device has done all work queued so far. */
  async done() {
    this.#enter();
    this.#submission.flush();
    await this.#settled(this.queue.onSubmittedWorkDone());
    if (this.lost) throw new Error(this.lost); // the promise of a lost device resolves, too
  }

  /** Fill `into` within this call, after all work queued so far. Returns an empty string, or why it cannot.
   * @param {number} name @param {number} offset @param {PyBuffer} into */
  readNow(name, offset, into) {
    this.#enter();
    const source = this.#buffers.get(name);
    // Not tried where plain code can wait: Chromium destroys the devices of a canvas that its compositor
    // does not support (SwiftShader's).
    if ("Suspending" in WebAssembly) return "with JSPI no canvas is tried";
    if (this.#reader && typeof this.#reader === "string") return this.#reader;
    const view = into.getBuffer("u8");
    try {
      if (!this.#reader) {
        this.#reader = new this.#CanvasReader(this.#device, this.#submission);
        this.#staging.allocated += this.#CanvasReader.nbytes;
      }
      if (typeof this.#reader !== "string") this.#reader.read(source, offset, view.data);
      this.#fetched += view.data.byteLength;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#reader ||= reason;
      return reason;
    } finally {
      view.release();
    }
    return "";
  }

  /** As `pipeline`, within this call; a later read reports errors of the device.
   * @param {string} wgsl @param {string} constants JSON @param {string} bindings @param {string} label
   * @param {string} entry */
  pipelineNow(wgsl, constants, bindings, label, entry = "main") {
    this.#enter();
    const recipe = { wgsl, constants: JSON.parse(constants), bindings, label, entry };
    this.#device.pushErrorScope("validation");
    try {
      return this.#pipelines.add(this.#compiler.takeNow(recipe));
    } finally {
      this.#faults.noteScope();
    }
  }

  /**
   * A pipeline's name, or a JSON list of [line, message, column] where it does not compile.
   * @param {string} wgsl @param {string} constants JSON @param {string} bindings @param {string} label
   * @param {string} entry @returns {Promise<number | string>}
   */
  async pipeline(wgsl, constants, bindings, label, entry = "main") {
    this.#enter();
    const recipe = { wgsl, constants: JSON.parse(constants), bindings, label, entry };
    const profile = this.#profile;
    const start = profile?.now ?? 0;
    const compiled = await this.#compiler.take(recipe);
    if (this.lost) throw new Error(this.lost);
    if (typeof compiled === "string") return compiled;
    const name = this.#pipelines.add(compiled);
    profile?.noteCompiled(name, label, start);
    return name;
  }

  /** A canvas that shows buffers of this device; the module is screen.js.
   * @param {typeof import("./screen.js")} module @param {HTMLCanvasElement | OffscreenCanvas} canvas
   * @param {number} width @param {number} height */
  screen({ Screen }, canvas, width, height) {
    this.#enter();
    const buffer = (/** @type {number} */ name) => {
      this.#enter();
      return this.#buffers.get(name);
    };
    return new Screen(this.#device, this.#submission, buffer, canvas, width, height);
  }

  /** Drop a pipeline; tapes that use it still run. @param {number} name */
  dropPipeline(name) {
    this.#enter();
    this.#compiler.drop(this.#pipelines.remove(name));
  }

  /** Number of pipelines that were compiled and not dropped. */
  get pipelines() {
    return this.#pipelines.count;
  }

  /** For web/early.js. @param {import("./pipelines.js").Recipe[]} recipes */
  makeAhead(recipes) {
    return this.#compiler.makeAhead(recipes);
  }

  /** @param {PyBuffer} words */
  record(words) {
    this.#enter();
    return this.#recorded.add(this.#decoded(words));
  }

  /** @param {PyBuffer} words @returns {import("./tape.js").Tape} */
  #decoded(words) {
    const view = words.getBuffer("u8");
    const copy = new Int32Array(view.data.slice().buffer);
    view.release();
    return this.#tapes.decode(copy, {
      buffer: (name) => this.#buffers.get(name),
      pipeline: (name) => this.#pipelines.get(name).pipeline,
      group: (name, entries) => {
        const { pipeline, bindings } = this.#pipelines.get(name);
        const layout = this.#compiler.layout(bindings).group;
        return this.#device.createBindGroup({ label: pipeline.label, layout, entries });
      },
    });
  }

  /** Run a tape once, without storing it. @param {PyBuffer} words @param {PyBuffer} writes */
  run(words, writes) {
    this.#enter();
    this.#submit(this.#decoded(words), writes);
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
    const label = this.#tapes.staleLabel(tape, this.#frees, (buffer) => this.#buffers.has(buffer));
    if (label) throw new this.#Fault("a buffer that it uses has been freed.", { label });
    this.#submit(tape, writes);
  }

  /** @param {import("./tape.js").Tape} tape @param {PyBuffer} writes */
  #submit(tape, writes) {
    this.#submission.flush();
    const view = writes.getBuffer("u8");
    this.#written += view.data.byteLength;
    try {
      this.#tapes.write(this.queue, view.data, (buffer) => this.#buffers.get(buffer));
    } finally {
      view.release();
    }
    this.#encode(this.#submission.encoder(), tape);
  }

  /** Start to measure; the module is profile.js. False where a profile runs already.
   * @param {typeof import("./profile.js")} module */
  startProfile({ Profile }) {
    this.#enter();
    if (this.#profile) return false;
    const profile = new Profile(this.#device, (nbytes) => this.#count("profile", nbytes));
    this.#profile = profile;
    [this.#written, this.#fetched] = [0, 0];
    this.#crossingsBefore = this.crossings;
    this.#encode = (encoder, tape) => {
      if (!profile.encode(encoder, tape)) this.#tapes.encode(encoder, tape);
      profile.encoded();
    };
    profile.noteMemory(this.allocated);
    return true;
  }

  /** The measurements as JSON; an empty string where no profile runs. */
  async stopProfile() {
    const profile = this.#profile;
    if (!profile) return "";
    this.#submission.flush();
    profile.noteMemory(this.allocated);
    [this.#profile, this.#encode] = [null, this.#tapes.encode];
    const crossings = this.crossings - this.#crossingsBefore;
    this.#enter();
    return profile.finish({ written: this.#written, read: this.#fetched, crossings });
  }

  destroy() {
    this.lost ||= "destroyed by the program";
    this.#submission.drop();
    this.#profile = null;
    for (const buffer of this.#buffers.clear()) buffer.destroy();
    this.#recorded.clear();
    this.#pipelines.clear();
    this.#staging.destroy();
    this.#kinds.clear();
    this.#kindOf.clear();
    this.#device.destroy();
  }

  /** @param {string} kind @param {number} nbytes */
  #count(kind, nbytes) {
    this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + nbytes);
    this.#notePeak();
    this.#profile?.noteMemory(this.allocated);
  }

  #enter() {
    this.crossings += 1;
    if (this.lost) throw new Error(this.lost);
  }

  /** @param {GPUBuffer} staging @param {number} nbytes @param {PyBuffer} into */
  async #finishRead(staging, nbytes, into) {
    await null; // submits the encoded commands: their microtask was queued before this one
    await this.#settled(this.#staging.fill(staging, nbytes, into));
  }

  /** Wait for what follows the last submission; throws for the first error of the device.
   * @param {Promise<void>} work */
  async #settled(work) {
    const { answered } = this.#submission;
    let cause = null;
    try {
      await this.#submission.finished(work);
    } catch (error) {
      cause = error;
    }
    await answered;
    if (cause && this.lost) throw new Error(this.lost);
    if (!cause && !this.#faults.any) return;
    const refusal = await this.#faults.take(this.#recorded.live);
    const fault = cause instanceof this.#Fault ? cause : (refusal ?? cause);
    if (fault) throw fault;
  }
}

/**
 * For Python, which has no `new`. @param {import("./device.js").Opened} opened
 * @param {Modules["handles"]} handles @param {Modules["staging"]} staging
 * @param {Modules["tape"]} tape @param {Modules["pipelines"]} pipelines
 * @param {Modules["submission"]} submission @param {Modules["faults"]} faults
 * @param {Modules["canvasRead"]} canvasRead
 */
export function createGpu(opened, handles, staging, tape, pipelines, submission, faults, canvasRead) {
  return new Gpu(opened, { handles, staging, tape, pipelines, submission, faults, canvasRead });
}
