// Compute pipelines, cached by their source and constants: each is compiled once. It imports nothing
// (see gpu.js).

/**
 * `key` identifies a pipeline by its source, constants and bindings.
 * @typedef {{ pipeline: GPUComputePipeline, bindings: string, key: string }} Pipeline
 * @typedef {{ group: GPUBindGroupLayout, pipelineLayout: GPUPipelineLayout }} Layout
 * @typedef {{ wgsl: string, constants: Record<string, number>, bindings: string, label: string,
 *   entry?: string }} Recipe
 */

/** @type {Record<string, GPUBufferBindingType>} */
const BINDING_TYPES = { u: "uniform", r: "read-only-storage", w: "storage" };

export class Pipelines {
  #device;
  /** @type {Map<string, Layout>} */
  #layouts = new Map();
  /** Pipelines, or JSON lists of [line, message, column]. @type {Map<string, Promise<Pipeline | string>>} */
  #compiled = new Map();
  /** Compiled ahead and not requested yet. @type {Set<string>} */
  #ahead = new Set();
  /** Requested pipelines that had been compiled ahead. */
  early = 0;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
  }

  /** A pipeline, or a JSON list of [line, message, column] where the shader does not compile.
   * @param {Recipe} recipe @returns {Promise<Pipeline | string>} */
  take(recipe) {
    const key = keyOf(recipe);
    if (this.#ahead.delete(key)) this.early += 1;
    return this.#once(key, recipe);
  }

  /** As `take`, compiled within the call; errors are reported later.
   * @param {Recipe} recipe @returns {Pipeline} */
  takeNow(recipe) {
    const { wgsl, constants, bindings, label, entry = "main" } = recipe;
    const layout = this.layout(bindings).pipelineLayout;
    const module = this.#device.createShaderModule({ code: wgsl, label });
    const compute = { module, entryPoint: entry, constants };
    const pipeline = this.#device.createComputePipeline({ label, layout, compute });
    return { pipeline, bindings, key: keyOf(recipe) };
  }

  /** Compile all of them in parallel before they are requested; returns how many are ready.
   * @param {Recipe[]} recipes @returns {Promise<number>} */
  async makeAhead(recipes) {
    const all = await Promise.all(
      recipes.map(async (recipe) => {
        const key = keyOf(recipe);
        if (this.#compiled.has(key)) return true;
        this.#ahead.add(key);
        const pipeline = await this.#once(key, recipe).catch(String);
        if (typeof pipeline === "string") this.#ahead.delete(key);
        return typeof pipeline !== "string";
      }),
    );
    return all.filter(Boolean).length;
  }

  /** Drop a pipeline from the cache: if it is requested again, it is compiled again. @param {Pipeline} pipeline */
  drop({ key }) {
    this.#compiled.delete(key);
  }

  /** @param {string} bindings */
  layout(bindings) {
    const known = this.#layouts.get(bindings);
    if (known) return known;
    const entries = [...bindings].flatMap((letter, binding) =>
      letter === "-"
        ? []
        : [{ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: BINDING_TYPES[letter] } }],
    );
    const group = this.#device.createBindGroupLayout({ entries });
    const pipelineLayout = this.#device.createPipelineLayout({ bindGroupLayouts: [group] });
    const layouts = { group, pipelineLayout };
    this.#layouts.set(bindings, layouts);
    return layouts;
  }

  /** @param {string} key @param {Recipe} recipe */
  #once(key, recipe) {
    const known = this.#compiled.get(key);
    if (known) return known;
    const making = this.#make(key, recipe);
    this.#compiled.set(key, making);
    // Failures are not cached: a later request compiles again.
    const forget = () => this.#compiled.delete(key);
    making.then((result) => typeof result === "string" && forget(), forget);
    return making;
  }

  /** @param {string} key @param {Recipe} recipe @returns {Promise<Pipeline | string>} */
  async #make(key, { wgsl, constants, bindings, label, entry = "main" }) {
    const layout = this.layout(bindings).pipelineLayout;
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ code: wgsl, label });
    const compute = { module, entryPoint: entry, constants };
    const making = this.#device.createComputePipelineAsync({ label, layout, compute });
    const scope = this.#device.popErrorScope();
    try {
      const pipeline = await making;
      await scope;
      return { pipeline, bindings, key };
    } catch (error) {
      const errors = (await module.getCompilationInfo()).messages.filter((m) => m.type === "error");
      if (errors.length) {
        return JSON.stringify(errors.map((m) => [m.lineNum, m.message, m.linePos]));
      }
      const scoped = await scope;
      return JSON.stringify([[0, scoped?.message ?? String(error), 0]]);
    }
  }
}

/** @param {Recipe} recipe */
function keyOf({ wgsl, constants, bindings, entry = "main" }) {
  return JSON.stringify([Object.entries(constants).sort(), bindings, entry, wgsl]);
}
