// transformers.js as its documentation has it, on a page of its own: it loads its model as soon as
// the page opens. All is served from here, and its own cache (the Cache API) is left on.

import { env, pipeline } from "/peers/@huggingface/transformers/dist/transformers.min.js";

// The runtime file that it would fetch from a CDN by default.
const runtime =
  "/peers/@huggingface/transformers/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify";
env.backends.onnx.wasm.wasmPaths = { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` };
env.backends.onnx.wasm.numThreads = 1;
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "/transformers/";

const asked = new URL(location.href).searchParams;
const device = asked.get("device") ?? "wasm";
const task = asked.get("task") ?? "feature-extraction";
const model = asked.get("model") ?? "all-MiniLM-L6-v2";
const opened = pipeline(task, model, { device, dtype: "fp32" });
opened.catch(() => {}); // whoever embeds hears of it

Object.assign(globalThis, {
  transformers: {
    ready: opened.then(() => {}),
    /** @param {string} text */
    async embed(text) {
      const { data } = await (await opened)(text, { pooling: "mean", normalize: true });
      return Array.from(data);
    },
    /** @param {Float32Array} samples 16,000 a second, 30 s at most */
    async transcribe(samples) {
      return (await (await opened)(samples)).text;
    },
  },
});
