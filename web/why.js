// One line on where a model runs and why; the rest is in the details.

/** @typedef {import("./protocol.js").Loaded} Loaded */
/** @typedef {import("./protocol.js").Considered} Considered */

/** @type {Record<string, string>} */
const PLACES = {
  webgpu: "On the GPU, by WebGPU",
  "webgpu-limited": "On the GPU, with WebGPU's default limits",
  webnn: "By the browser's neural network API",
  wasm: "On the CPU, by WebAssembly",
  cpu: "On the CPU, by numpy",
};

/** @param {Pick<Loaded, "tier" | "decision">} loaded @param {string} wanted the tier that was asked for */
export function whyOf({ tier, decision }, wanted) {
  const place = PLACES[tier] ?? tier;
  const cause = causeOf(tier, decision, wanted);
  return cause ? `${place}: ${cause}.` : `${place}.`;
}

/** @param {string} tier @param {Loaded["decision"]} decision @param {string} wanted */
function causeOf(tier, decision, wanted) {
  if (wanted === tier) return "as chosen";
  if (!decision) return "";
  if (decision.chosen !== tier) return "a tier that was expected to be faster failed here";
  const gpu = decision.considered.find((each) => each.tier === "webgpu");
  if (tier.startsWith("webgpu") || !gpu) return timed(decision.considered) > 1 ? "the fastest here" : "";
  if (gpu.refused) return refusal(gpu.refused);
  if (decision.warning) return "faster than this machine's GPU, which is only software";
  return gpu.expected_ms === null ? "the GPU could not be measured" : "faster than the GPU for this model";
}

/** @param {Considered[]} considered */
function timed(considered) {
  return considered.filter(({ expected_ms }) => expected_ms !== null).length;
}

/** @param {string} refused */
function refusal(refused) {
  if (refused.includes("BASCULE_")) return "the GPU is switched off by this page's address";
  if (/navigator\.gpu|adapter/.test(refused)) return "this browser offers no GPU";
  if (/memory|room|MB|MiB|bytes/.test(refused)) return "the model does not fit the GPU's memory";
  return "the GPU cannot be used here";
}
