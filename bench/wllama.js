// llama.cpp compiled to WASM, imported by a page of the same Chromium as ours.

const BASE = "/peers/@wllama/wllama/esm/";

/** Its WebGPU stays off (n_gpu_layers): this is the contestant on the CPU. */
export async function open(model, threads) {
  const { Wllama } = await import(`${BASE}index.js`);
  const runtime = new Wllama({ default: `${BASE}wasm/wllama.wasm` }, { suppressNativeLog: true });
  const file = await (await fetch(model)).blob();
  await runtime.loadModel([file], { n_ctx: 512, n_parallel: 1, n_threads: threads, n_gpu_layers: 0 });
  return { runtime, threads: runtime.getNumThreads(), version: Wllama.getLibllamaVersion() };
}

/** A greedy text without a past; the milliseconds at which its first and its last token were here. */
export async function generate(runtime, prompt, most) {
  const pieces = [];
  const times = [];
  let last;
  const began = performance.now();
  await runtime.createCompletion({
    prompt,
    max_tokens: most,
    temperature: 0,
    ignore_eos: true,
    cache_prompt: false,
    timings_per_token: true,
    stream: true,
    onData(chunk) {
      last = chunk;
      if (chunk.choices[0].finish_reason) return; // it carries no token
      pieces.push(chunk.choices[0].text);
      times.push(performance.now() - began);
    },
  });
  const { prompt_n: promptTokens, predicted_n: tokens } = last.timings;
  return { text: pieces.join(""), tokens, promptTokens, first: times[0], total: times.at(-1) };
}
