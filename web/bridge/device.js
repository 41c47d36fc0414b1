// Finding an adapter and opening a device. It imports nothing (see gpu.js).

/** `asked` is what the device was asked for, in words. @typedef {{ device: GPUDevice, info: string,
 *   asked: string }} Opened */

// Names under which adapters that run on the CPU are known.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|warp|basic render/i;

const NULL_HOLDS_MS = 1000;

/**
 * Throws an Error whose message says what is missing.
 * @param {boolean} [least] whether an adapter of WebGPU's compatibility mode will do
 */
export async function findAdapter(least = false) {
  if (!globalThis.navigator?.gpu) {
    throw new Error(
      globalThis.isSecureContext === false
        ? "the page is not a secure context (WebGPU needs https or localhost)"
        : "this browser has no navigator.gpu",
    );
  }
  const adapter = (await ask("core")) ?? (least ? await ask("compatibility") : null);
  if (!adapter) throw new Error("the browser has WebGPU and found no adapter");
  return adapter;
}

/** Null for a second after a null: a load asks thrice within one, and a browser warns in the console each time.
 * @param {"core" | "compatibility"} featureLevel @returns {Promise<GPUAdapter | null>} */
async function ask(featureLevel) {
  const page = /** @type {{ basculeNoAdapter?: Record<string, number> }} */ (globalThis);
  const refused = (page.basculeNoAdapter ??= {}); // in common: the page may hold this module twice
  if (performance.now() - (refused[featureLevel] ?? -Infinity) < NULL_HOLDS_MS) return null;
  /** @type {GPURequestAdapterOptions} */
  const options = { powerPreference: "high-performance" };
  if (featureLevel === "compatibility") options.featureLevel = featureLevel;
  const adapter = await navigator.gpu.requestAdapter(options);
  if (!adapter) refused[featureLevel] = performance.now();
  return adapter;
}

/** What an adapter says of itself; older browsers leave out some of it, or all.
 * @param {GPUAdapter} adapter */
export function describe(adapter) {
  const { info } = adapter;
  const [vendor, architecture, device, description] = words(info);
  const software = Boolean(info?.isFallbackAdapter) || words(info).some((word) => SOFTWARE.test(word));
  return { vendor, architecture, device, description, software };
}

/** @param {GPUAdapterInfo | undefined} info */
function words(info) {
  return [info?.vendor, info?.architecture, info?.device, info?.description].map((word) => word ?? "");
}

/**
 * Open a device with the adapter's own limits. Throws an Error whose message says what is missing.
 * @param {string} limitsJson names @param {string} featuresJson names of those that are welcome
 * @param {boolean} [least] whether to ask for no feature and no limit: what every device grants
 * @returns {Promise<Opened>}
 */
export async function openDevice(limitsJson, featuresJson, least = false) {
  const adapter = await findAdapter(least);
  /** @type {string[]} */
  const wanted = least ? [] : JSON.parse(featuresJson);
  const features = wanted.filter((name) => adapter.features.has(name));
  const requiredLimits = least ? {} : named(adapter.limits, limitsJson);
  const requiredFeatures = /** @type {GPUFeatureName[]} */ (features);
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  const limits = named(device.limits, limitsJson);
  const facts = [words(adapter.info), features, limits, navigator.userAgent];
  const info = {
    ...describe(adapter),
    features,
    limits,
    least,
    identity: JSON.stringify(least ? [...facts, "least"] : facts),
    subgroups_enable: features.includes("subgroups") && (await compiles(device)),
  };
  return { device, info: JSON.stringify(info), asked: limitsJson + featuresJson };
}

/** Those of its limits that are wanted and there.
 * @param {GPUSupportedLimits} limits @param {string} namesJson */
function named(limits, namesJson) {
  /** @type {Record<string, number>} */
  const granted = {};
  for (const name of JSON.parse(namesJson)) {
    const value = Reflect.get(limits, name);
    if (typeof value === "number") granted[name] = value;
  }
  return granted;
}

/** Whether the compiler knows the directive: Tint wants it before the builtins, naga refuses it.
 * @param {GPUDevice} device */
async function compiles(device) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: "enable subgroups;" });
  return (await device.popErrorScope()) === null;
}
