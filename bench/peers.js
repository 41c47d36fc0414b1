// The peers' side of the benchmark, imported by a page of the same Chromium as ours.

/** @param {string} provider "webgpu" or "wasm" @param {string} model */
export async function ort(provider, model) {
  const base = "/peers/onnxruntime-web/dist/";
  const file = provider === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const runtime = await import(base + file);
  runtime.env.wasm.wasmPaths = base;
  runtime.env.wasm.numThreads = 1;
  const session = await runtime.InferenceSession.create(model, { executionProviders: [provider] });
  return { runtime, session };
}

/** Milliseconds of each pass and the last result's first row. */
export async function ortEmbed({ runtime, session }, batch, tokens, ids, repeats) {
  const flat = BigInt64Array.from(Array(batch).fill(ids).flat(), BigInt);
  const tensor = (data) => new runtime.Tensor("int64", data, [batch, tokens]);
  const times = [];
  let found;
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    const inputs = { ids: tensor(flat), mask: tensor(flat.map(() => 1n)) };
    found = await session.run(inputs);
    await found.embedding.getData();
    times.push(performance.now() - began);
  }
  return { times, row: Array.from((await found.embedding.getData()).slice(0, 384)) };
}

export async function ortMatmul({ runtime, session }, side, repeats) {
  const make = () => new runtime.Tensor("float32", new Float32Array(side * side).fill(0.5), [side, side]);
  const [a, b] = [make(), make()];
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    const { c } = await session.run({ a, b });
    await c.getData();
    times.push(performance.now() - began);
  }
  return times;
}

export async function jaxMatmul(backend, side, repeats) {
  const jax = await import("/peers/@jax-js/jax/dist/index.js");
  await jax.init(backend);
  jax.defaultDevice(backend);
  const make = () => jax.numpy.array(new Float32Array(side * side).fill(0.5)).reshape([side, side]);
  const [a, b] = [make(), make()];
  await a.ref.data();
  const times = [];
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    await jax.numpy.matmul(a.ref, b.ref).data();
    times.push(performance.now() - began);
  }
  return times;
}
