// The page's side of the WebNN tier (py/bascule/backend/webnn/ml.py): a context whose graphs are
// named by integers. A graph comes as steps, calls of MLGraphBuilder's own methods by their names;
// it knows no op and no model. It imports nothing (see gpu.js).

/** @typedef {import("./gpu.js").PyBuffer} PyBuffer */
/** WebNN has no types in TypeScript's library. @typedef {any} Native */
/**
 * `[method, operands, arguments, options, operands among the options]`; an operand is the index of a
 * step, the arguments of "input" and "constant" are a name, a shape and a data type.
 * @typedef {[string, number[], any[], Record<string, any>, Record<string, number>]} Step
 * @typedef {{ graph: Native, inputs: Record<string, Native>, outputs: Record<string, Native> }} Built
 */

const LISTED = ["concat"]; // these take their operands as one list

/** A context on the first kind of device for which the browser makes one; throws with its messages. */
export async function openContext() {
  const ml = Reflect.get(globalThis.navigator, "ml");
  if (!ml) throw new Error("this browser has no navigator.ml");
  const refused = [];
  for (const deviceType of ["npu", "gpu", "cpu"]) {
    try {
      return new Ml(await ml.createContext({ deviceType }), deviceType);
    } catch (error) {
      refused.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error([...new Set(refused)].join("; "));
}

class Ml {
  #context;
  /** @type {Map<number, Built>} */
  #graphs = new Map();
  #lastGraph = 0;
  lost = "";

  /** @param {Native} context @param {string} deviceType */
  constructor(context, deviceType) {
    this.#context = context;
    this.device = deviceType;
    context.lost?.then((/** @type {any} */ reason) => (this.lost ||= reason?.message || "it gave no reason"));
  }

  /** Start a graph. @param {string} stepsJson */
  begin(stepsJson) {
    const Builder = Reflect.get(globalThis, "MLGraphBuilder");
    return new Building(new Builder(this.#context), JSON.parse(stepsJson), (build) => this.#store(build));
  }

  /** @param {number} graph @param {string} name @param {PyBuffer} data */
  write(graph, name, data) {
    const view = data.getBuffer("u8");
    try {
      this.#context.writeTensor(this.#graph(graph).inputs[name], view.data);
    } finally {
      view.release();
    }
  }

  /** Queue a run on the inputs that were written. @param {number} graph */
  dispatch(graph) {
    const { graph: native, inputs, outputs } = this.#graph(graph);
    this.#context.dispatch(native, inputs, outputs);
  }

  /** @param {number} graph @param {string} name @param {PyBuffer} into */
  async read(graph, name, into) {
    const bytes = new Uint8Array(await this.#context.readTensor(this.#graph(graph).outputs[name]));
    const view = into.getBuffer("u8"); // not before: it is invalid when the WASM heap grows
    try {
      view.data.set(bytes);
    } finally {
      view.release();
    }
  }

  /** @param {number} graph */
  free(graph) {
    const { graph: native, inputs, outputs } = this.#graph(graph);
    this.#graphs.delete(graph);
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.destroy();
    native.destroy?.();
  }

  destroy() {
    for (const graph of [...this.#graphs.keys()]) this.free(graph);
    this.#context.destroy?.();
  }

  /** @param {number} name */
  #graph(name) {
    const graph = this.#graphs.get(name);
    if (!graph) throw new Error(`no graph ${name}`);
    return graph;
  }

  /** @param {{ graph: Native, inputs: Native, outputs: Native }} described */
  async #store({ graph, inputs, outputs }) {
    const tensors = async (/** @type {Native} */ described, /** @type {object} */ use) => {
      const entries = Object.entries(described).map(async ([name, { dataType, shape }]) => [
        name,
        await this.#context.createTensor({ dataType, shape, ...use }),
      ]);
      return Object.fromEntries(await Promise.all(entries));
    };
    this.#graphs.set(++this.#lastGraph, {
      graph,
      inputs: await tensors(inputs, { writable: true }),
      outputs: await tensors(outputs, { readable: true }),
    });
    return this.#lastGraph;
  }
}

/** A graph whose constants come one by one. */
class Building {
  #builder;
  #steps;
  #store;
  /** @type {Map<string, Native>} */
  #constants = new Map();

  /** @param {Native} builder @param {Step[]} steps @param {(build: Native) => Promise<number>} store */
  constructor(builder, steps, store) {
    this.#builder = builder;
    this.#steps = steps;
    this.#store = store;
  }

  /** The bytes are copied at once. @param {string} name @param {PyBuffer} data */
  constant(name, data) {
    const step = this.#steps.find(([method, , args]) => method === "constant" && args[0] === name);
    if (!step) return;
    const [, shape, dataType] = step[2];
    const view = data.getBuffer("u8");
    try {
      // A view on Python's memory may be odd in place and grow away: the builder gets its own.
      this.#constants.set(name, this.#builder.constant({ dataType, shape }, view.data.slice()));
    } finally {
      view.release();
    }
  }

  /** The graph's number. @param {string} outputsJson step numbers by name */
  async finish(outputsJson) {
    /** @type {Native[]} */
    const built = [];
    /** @type {Record<string, Native>} */
    const inputs = {};
    for (const [method, operands, args, options, named] of this.#steps) {
      if (method === "constant") {
        built.push(this.#constants.get(args[0]));
      } else if (method === "input") {
        const [name, shape, dataType] = args;
        inputs[name] = { dataType, shape };
        built.push(this.#builder.input(name, inputs[name]));
      } else {
        const values = operands.map((at) => built[at]);
        const withOperands = { ...options };
        for (const [name, at] of Object.entries(named)) withOperands[name] = built[at];
        built.push(this.#builder[method](...(LISTED.includes(method) ? [values] : values), ...args, withOperands));
      }
    }
    /** @type {Record<string, Native>} */
    const outputs = {};
    for (const [name, at] of Object.entries(JSON.parse(outputsJson))) outputs[name] = built[at];
    const described = Object.fromEntries(
      Object.entries(outputs).map(([name, { dataType, shape }]) => [name, { dataType, shape }]),
    );
    return this.#store({ graph: await this.#builder.build(outputs), inputs, outputs: described });
  }
}
