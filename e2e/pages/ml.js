// A navigator.ml for tests, where the browser's own makes no context: the methods that Bascule
// calls, in plain loops, and strict about what https://www.w3.org/TR/webnn/ asks of a caller.

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint32: Uint32Array, uint8: Uint8Array };
const count = (shape) => shape.reduce((n, size) => n * size, 1);

function need(ok, told) {
  if (!ok) throw new TypeError(told);
}

/** The place in an array of `shape` of what stands at `at` in one that it is broadcast to. */
function place(shape, at) {
  let index = 0;
  const skipped = at.length - shape.length;
  shape.forEach((size, axis) => (index = index * size + (size === 1 ? 0 : at[axis + skipped])));
  return index;
}

function* places(shape) {
  const at = shape.map(() => 0);
  for (let n = count(shape); n > 0; n -= 1) {
    yield at;
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis -= 1) at[axis] = 0;
  }
}

function broadcast(...shapes) {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - rank + shape.length] ?? 1);
    const size = Math.max(...sizes);
    need(sizes.every((s) => s === 1 || s === size), `shapes do not broadcast: ${JSON.stringify(shapes)}`);
    return size;
  });
}

class Operand {
  /** `value(at, arrays)` gives the number at a place, out of what `sources` hold. */
  constructor(dataType, shape, sources, value) {
    Object.assign(this, { dataType, shape, sources, value });
  }

  fill(known) {
    if (known.has(this)) return known.get(this);
    const held = this.sources.map((source) => source.fill(known));
    const made = new ARRAYS[this.dataType](count(this.shape));
    let next = 0;
    for (const at of places(this.shape)) made[next++] = this.value(at, held);
    known.set(this, made);
    return made;
  }
}

const each = (dataType, inputs, f) => {
  const shapes = inputs.map((input) => input.shape);
  const value = (at, held) => f(...held.map((array, index) => array[place(shapes[index], at)]));
  return new Operand(dataType ?? inputs.at(-1).dataType, broadcast(...shapes), inputs, value);
};

const reduced = (x, axes, keepDimensions, f) => {
  const size = count(axes.map((axis) => x.shape[axis]));
  const kept = x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
  const shape = keepDimensions ? kept : kept.filter((_, axis) => !axes.includes(axis));
  const ranges = x.shape.map((n, axis) => (axes.includes(axis) ? n : 1));
  return new Operand(x.dataType, shape, [x], (at, [array]) => {
    const rest = [...at];
    const base = kept.map((_, axis) => (keepDimensions || !axes.includes(axis) ? rest.shift() : 0));
    let total = 0;
    for (const step of places(ranges)) total += array[place(x.shape, base.map((b, axis) => b + step[axis]))];
    return f(total, size);
  });
};

function erf(x) {
  // Its series: enough of it for the small numbers of a test.
  let [sum, term] = [x, x];
  for (let n = 1; n < 60; n += 1) sum += (term *= (-x * x) / n) / (2 * n + 1);
  return Math.abs(x) > 4 ? Math.sign(x) : (2 / Math.sqrt(Math.PI)) * sum;
}

globalThis.MLGraphBuilder = class {
  constructor(context) {
    need(context instanceof Context, "a builder needs a context");
  }

  input(name, { dataType, shape }) {
    return Object.assign(new Operand(dataType, shape, [], null), { name });
  }

  constant({ dataType, shape }, bytes) {
    need(bytes.byteLength === count(shape) * ARRAYS[dataType].BYTES_PER_ELEMENT, "constant of another size");
    const held = new ARRAYS[dataType](bytes.slice().buffer);
    return new Operand(dataType, shape, [], (at) => held[place(shape, at)]);
  }

  add = (a, b) => each(null, [a, b], (x, y) => x + y);
  mul = (a, b) => each(null, [a, b], (x, y) => x * y);
  div = (a, b) => each(null, [a, b], (x, y) => x / y);
  lesser = (a, b) => each("uint8", [a, b], (x, y) => Number(x < y));
  logicalAnd = (a, b) => each("uint8", [a, b], (x, y) => Number(x && y));
  where = (condition, a, b) => each(null, [condition, a, b], (c, x, y) => (c ? x : y));
  cast = (x, dataType) => each(dataType, [x], (v) => v);
  identity = (x) => each(null, [x], (v) => v);
  clamp = (x, { minValue, maxValue }) => each(null, [x], (v) => Math.min(Math.max(v, minValue), maxValue));
  sqrt = (x) => each(null, [x], Math.sqrt);
  exp = (x) => each(null, [x], Math.exp);
  neg = (x) => each(null, [x], (v) => -v);
  tanh = (x) => each(null, [x], Math.tanh);
  gelu = (x) => each(null, [x], (v) => 0.5 * v * (1 + erf(v / Math.SQRT2)));
  reduceSum = (x, { axes, keepDimensions }) => reduced(x, axes, keepDimensions, (total) => total);
  reduceMean = (x, { axes, keepDimensions }) => reduced(x, axes, keepDimensions, (total, n) => total / n);

  reshape(x, shape) {
    need(count(shape) === count(x.shape), "reshape to another size");
    let next = 0;
    return new Operand(x.dataType, shape, [x], (at, [array]) => {
      next = at.every((index) => index === 0) ? 0 : next + 1;
      return array[next];
    });
  }

  transpose = (x, { permutation }) =>
    new Operand(x.dataType, permutation.map((axis) => x.shape[axis]), [x], (at, [array]) =>
      array[place(x.shape, x.shape.map((_, axis) => at[permutation.indexOf(axis)]))]);

  slice(x, starts, sizes) {
    need(sizes.every((n, axis) => starts[axis] + n <= x.shape[axis]), "slice past the end");
    return new Operand(x.dataType, sizes, [x], (at, [array]) =>
      array[place(x.shape, at.map((index, axis) => index + starts[axis]))]);
  }

  gather(table, ids, { axis }) {
    need(axis === 0 && ids.dataType !== "float32", "gather by whole numbers along the first axis");
    const [, ...row] = table.shape;
    return new Operand("float32", [...ids.shape, ...row], [table, ids], (at, [array, index]) =>
      array[place(table.shape, [index[place(ids.shape, at.slice(0, ids.shape.length))], ...at.slice(ids.shape.length)])]);
  }

  concat(inputs, axis) {
    const shape = inputs[0].shape.map((n, a) => (a === axis ? inputs.reduce((m, x) => m + x.shape[a], 0) : n));
    return new Operand(inputs[0].dataType, shape, inputs, (at, held) => {
      const from = [...at];
      const which = inputs.findIndex((x) => from[axis] < x.shape[axis] || ((from[axis] -= x.shape[axis]), false));
      return held[which][place(inputs[which].shape, from)];
    });
  }

  matmul(a, b) {
    const [m, inner, n] = [a.shape.at(-2), a.shape.at(-1), b.shape.at(-1)];
    need(inner === b.shape.at(-2), "matmul of other inner sizes");
    const shape = [...broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2)), m, n];
    return new Operand("float32", shape, [a, b], (at, [x, y]) => {
      const [row, column] = at.slice(-2);
      const batch = at.slice(0, -2);
      let total = 0;
      for (let k = 0; k < inner; k += 1)
        total += x[place(a.shape, [...batch, row, k])] * y[place(b.shape, [...batch, k, column])];
      return total;
    });
  }

  gemm(a, b, { c, bTranspose }) {
    need(a.shape.length === 2 && b.shape.length === 2, "gemm takes matrices");
    const y = this.matmul(a, bTranspose ? this.transpose(b, { permutation: [1, 0] }) : b);
    return c ? this.add(y, c) : y;
  }

  softmax(x, axis) {
    const most = new Operand(x.dataType, x.shape.with(axis, 1), [x], (at, [array]) =>
      Math.max(...Array.from({ length: x.shape[axis] }, (_, k) => array[place(x.shape, at.with(axis, k))])));
    const powers = each(null, [x, most], (v, m) => Math.exp(v - m));
    return this.div(powers, this.reduceSum(powers, { axes: [axis], keepDimensions: true }));
  }

  layerNormalization(x, { scale, bias, axes, epsilon }) {
    const mean = this.reduceMean(x, { axes, keepDimensions: true });
    const centred = each(null, [x, mean], (v, m) => v - m);
    const variance = this.reduceMean(this.mul(centred, centred), { axes, keepDimensions: true });
    const y = each(null, [centred, variance], (v, s) => v / Math.sqrt(s + epsilon));
    return this.add(this.mul(y, scale), bias);
  }

  async build(outputs) {
    need(Object.values(outputs).every((o) => o instanceof Operand && o.value), "an output that is an input");
    const inputs = new Map();
    const visit = (operand, seen = new Set()) => {
      if (seen.has(operand)) return;
      seen.add(operand);
      if (operand.name) inputs.set(operand.name, operand);
      operand.sources.forEach((source) => visit(source, seen));
    };
    Object.values(outputs).forEach((operand) => visit(operand));
    return { inputs, outputs };
  }
};

class Context {
  lost = new Promise((resolve) => (this.lose = resolve));

  async createTensor({ dataType, shape, readable = false, writable = false }) {
    return { readable, writable, data: new ARRAYS[dataType](count(shape)), destroy() { this.data = null; } };
  }

  writeTensor(tensor, bytes) {
    need(tensor.writable && bytes.byteLength === tensor.data.byteLength, "a write of another size");
    new Uint8Array(tensor.data.buffer).set(bytes);
  }

  async readTensor(tensor) {
    need(tensor.readable, "not readable");
    return tensor.data.slice().buffer;
  }

  dispatch(graph, inputs, outputs) {
    const names = (named) => JSON.stringify(Object.keys(named).sort());
    need(names(inputs) === names(Object.fromEntries(graph.inputs)), `inputs ${names(inputs)}`);
    need(names(outputs) === names(graph.outputs), `outputs ${names(outputs)}`);
    const known = new Map();
    for (const [name, operand] of graph.inputs) known.set(operand, inputs[name].data);
    for (const [name, operand] of Object.entries(graph.outputs)) outputs[name].data.set(operand.fill(known));
  }

  destroy() {}
}

/** In place of the browser's own. Only the CPU, as where there is no other. */
export function install() {
  const contexts = [];
  const ml = {
    contexts,
    async createContext({ deviceType }) {
      need(deviceType === "cpu", `no ${deviceType} here`);
      contexts.push(new Context());
      return contexts.at(-1);
    },
  };
  Object.defineProperty(navigator, "ml", { value: ml, configurable: true });
}
