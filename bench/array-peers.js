// The peers' side of bench/arrays.py: each runs one piece of work once and reads three numbers.
//
// jax-js runs compiled functions (jit), which fuse; tfjs has none. Inputs stay on the device.

const inputs = new Map();

/** Numbers in [0, 1) that arrays_probe.py makes, too. @param {string} name @param {number} size */
function numbers(name, size) {
  const key = `${name} ${size}`;
  if (!inputs.has(key)) {
    const first = name.charCodeAt(0);
    const word = (_, i) => (Math.imul(i + first, 2654435761) >>> 0) / 4294967296;
    inputs.set(key, Float32Array.from({ length: size }, word));
  }
  return inputs.get(key);
}

/** Shapes of the inputs. @type {Record<string, (n: number) => [string, number[]][]>} */
const SHAPES = {
  copy: (n) => [["x", [n]]],
  chain: (n) => [["x", [n]]],
  sum: (n) => [["x", [n / 1000, 1000]]],
  softmax: (n) => [["x", [n / 1000, 1000]]],
  matmul: (n) => [["a", [n, n]], ["b", [n, n]]],
  matvec: (n) => [["a", [n, n]], ["b", [n]]],
  sort: (n) => [["x", [n]]],
  nbody: (n) => [["p", [n, 3]], ["v", [n, 3]]],
  fft: (n) => [["a", [n]], ["b", [n]]],
};

export function forget() {
  inputs.clear();
  for (const array of jaxInputs.values()) array.dispose();
  jaxInputs.clear();
  for (const tensor of tfInputs.values()) tensor.dispose();
  tfInputs.clear();
}

// --- jax-js: every use of an array but the last takes .ref ---

let jax;
const jaxInputs = new Map();
const compiled = new Map();

/** @type {Record<string, (...arrays: any[]) => any>} */
const JAX = {
  copy: (x) => x.mul(1.5),
  chain: (x) => {
    for (let i = 0; i < 4; i++) x = x.mul(1.0001).add(i * 0.5);
    return x;
  },
  sum: (x) => x.sum(1),
  softmax: (x) => jax.nn.softmax(x, 1),
  matmul: (a, b) => jax.numpy.matmul(a, b),
  matvec: (a, b) => jax.numpy.matmul(a, b),
  sort: (x) => jax.numpy.sort(x),
  nbody: (p, v) => {
    const n = p.shape[0];
    const apart = p.ref.reshape([1, n, 3]).sub(p.ref.reshape([n, 1, 3]));
    const near = apart.ref.mul(apart.ref).sum(2, { keepdims: true }).add(0.01);
    const pull = apart.div(near.ref.mul(jax.numpy.sqrt(near))).sum(1);
    return p.add(v.add(pull.mul(0.001)).mul(0.001));
  },
  fft: (real, imag) => {
    const found = jax.numpy.fft.fft({ real, imag });
    found.imag.dispose();
    return found.real;
  },
};

export async function jaxOnce(backend, what, n) {
  if (!jax) jax = await import("/peers/@jax-js/jax/dist/index.js");
  await jax.init(backend);
  jax.defaultDevice(backend);
  const arrays = SHAPES[what](n).map(([name, shape]) => {
    const key = `${backend} ${name} ${shape}`;
    const size = shape.reduce((a, b) => a * b, 1);
    if (!jaxInputs.has(key)) {
      jaxInputs.set(key, jax.numpy.array(numbers(name, size)).reshape(shape));
    }
    return jaxInputs.get(key);
  });
  for (const array of arrays) await array.blockUntilReady();
  const key = `${backend} ${what}`;
  // Its FFT does not go through jit.
  if (!compiled.has(key)) compiled.set(key, what === "fft" ? JAX[what] : jax.jit(JAX[what]));
  const began = performance.now();
  const found = compiled.get(key)(...arrays.map((array) => array.ref));
  const head = await found.reshape([-1]).slice([0, 3]).data();
  return { ms: performance.now() - began, head: Array.from(head) };
}

// --- tfjs ---

const tfInputs = new Map();

/** @param {string} url */
function script(url) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = url;
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${url} does not load`));
    document.head.append(element);
  });
}

async function openTf(backend) {
  if (!globalThis.tf) {
    await script("/peers/@tensorflow/tfjs/dist/tf.min.js");
    await script("/peers/@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.min.js");
    await script("/peers/@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js");
    globalThis.tf.wasm.setWasmPaths("/peers/@tensorflow/tfjs-backend-wasm/dist/");
    globalThis.tf.wasm.setThreadsCount(1);
  }
  if (!(await globalThis.tf.setBackend(backend))) throw new Error(`tfjs has no ${backend} here`);
  return globalThis.tf;
}

/** @type {Record<string, (tf: any, ...tensors: any[]) => any>} */
const TF = {
  copy: (tf, x) => x.mul(1.5),
  chain: (tf, x) => {
    for (let i = 0; i < 4; i++) x = x.mul(1.0001).add(i * 0.5);
    return x;
  },
  sum: (tf, x) => x.sum(1),
  softmax: (tf, x) => tf.softmax(x, 1),
  matmul: (tf, a, b) => tf.matMul(a, b),
  matvec: (tf, a, b) => tf.matMul(a, b.reshape([-1, 1])),
  sort: (tf, x) => tf.topk(x, x.size).values.reverse(),
  nbody: (tf, p, v) => {
    const n = p.shape[0];
    const apart = p.reshape([1, n, 3]).sub(p.reshape([n, 1, 3]));
    const near = apart.mul(apart).sum(2, true).add(0.01);
    const pull = apart.div(near.mul(near.sqrt())).sum(1);
    return p.add(v.add(pull.mul(0.001)).mul(0.001));
  },
  fft: (tf, real, imag) => tf.real(tf.fft(tf.complex(real, imag))),
};

export async function tfOnce(backend, what, n) {
  const tf = await openTf(backend);
  const tensors = SHAPES[what](n).map(([name, shape]) => {
    const key = `${backend} ${name} ${shape}`;
    const size = shape.reduce((a, b) => a * b, 1);
    if (!tfInputs.has(key)) tfInputs.set(key, tf.tensor(numbers(name, size), shape));
    return tfInputs.get(key);
  });
  for (const tensor of tensors) await tf.tidy(() => tensor.flatten().slice([0], [1])).data();
  const began = performance.now();
  const found = tf.tidy(() => TF[what](tf, ...tensors).flatten().slice([0], [3]));
  const head = await found.data();
  found.dispose();
  return { ms: performance.now() - began, head: Array.from(head) };
}
