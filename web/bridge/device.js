// Finding an adapter and opening a device. It imports nothing (see gpu.js).

/** `asked` is the request: the JSON of limits and features. @typedef {{ device: GPUDevice, info: string,
 *   asked: string }} Opened */

// Names of adapters that run on the CPU.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|warp|basic render/i;

const NULL_TTL_MS = 1000;

/**
 * Throws an Error whose message says what is missing.
 * @param {boolean} [limited] whether an adapter of WebGPU's compatibility mode is acceptable
 */
export async function findAdapter(limited = false) {
  if (!globalThis.navigator?.gpu) {
    throw new Error(
      globalThis.isSecureContext === false
        ? "the page is not a secure context (WebGPU needs https or localhost)"
        : "this browser has no navigator.gpu",
    );
  }
  const adapter = (await requestAdapter("core")) ?? (limited ? await requestAdapter("compatibility") : null);
  if (!adapter) throw new Error("the browser has WebGPU and found no adapter");
  return adapter;
}

/** Null without asking for a second after a null: a load asks three times, and the browser warns in the console
 * each time.
 * @param {"core" | "compatibility"} featureLevel @returns {Promise<GPUAdapter | null>} */
async function requestAdapter(featureLevel) {
  const page = /** @type {{ basculeNoAdapter?: Record<string, number> }} */ (globalThis);
  const refused = (page.basculeNoAdapter ??= {}); // global: the page may have this module twice
  if (performance.now() - (refused[featureLevel] ?? -Infinity) < NULL_TTL_MS) return null;
  /** @type {GPURequestAdapterOptions} */
  const options = { powerPreference: "high-performance" };
  if (featureLevel === "compatibility") options.featureLevel = featureLevel;
  const adapter = await navigator.gpu.requestAdapter(options);
  if (!adapter) refused[featureLevel] = performance.now();
  return adapter;
}

/** An adapter's description; older browsers leave out some fields, or all.
 * @param {GPUAdapter} adapter */
export function describe(adapter) {
  const { info } = adapter;
  const [vendor, architecture, device, description] = infoStrings(info);
  const software = Boolean(info?.isFallbackAdapter) || infoStrings(info).some((text) => SOFTWARE.test(text));
  return { vendor, architecture, device, description, software };
}

/** @param {GPUAdapterInfo | undefined} info */
function infoStrings(info) {
  return [info?.vendor, info?.architecture, info?.device, info?.description].map((text) => text ?? "");
}

/**
 * Open a device with the adapter's own limits. Throws an Error whose message says what is missing.
 * @param {string} limitsJson names @param {string} featuresJson names of optional ones
 * @param {boolean} [limited] whether to request no feature and the limits that every device grants
 * @returns {Promise<Opened>}
 */
export async function openDevice(limitsJson, featuresJson, limited = false) {
  const adapter = await findAdapter(limited);
  /** @type {string[]} */
  const wanted = limited ? [] : JSON.parse(featuresJson);
  const features = wanted.filter((name) => adapter.features.has(name));
  const requiredLimits = limited ? {} : pickLimits(adapter.limits, limitsJson);
  const requiredFeatures = /** @type {GPUFeatureName[]} */ (features);
  const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  const limits = pickLimits(device.limits, limitsJson);
  const facts = [infoStrings(adapter.info), features, limits, navigator.userAgent];
  const info = {
    ...describe(adapter),
    features,
    limits,
    limited,
    identity: JSON.stringify(limited ? [...facts, "limited"] : facts),
    subgroups_enable: features.includes("subgroups") && (await compiles(device)),
  };
  return { device, info: JSON.stringify(info), asked: limitsJson + featuresJson };
}

/** The named limits that it has.
 * @param {GPUSupportedLimits} limits @param {string} namesJson */
function pickLimits(limits, namesJson) {
  /** @type {Record<string, number>} */
  const granted = {};
  for (const name of JSON.parse(namesJson)) {
    const value = Reflect.get(limits, name);
    if (typeof value === "number") granted[name] = value;
  }
  return granted;
}

/** Whether the compiler accepts the directive: Tint requires it before the builtins, naga rejects it.
 * @param {GPUDevice} device */
async function compiles(device) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: "enable subgroups;" });
  return (await device.popErrorScope()) === null;
}
