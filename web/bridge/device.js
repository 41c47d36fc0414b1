// Finding an adapter and opening a device. It imports nothing (see gpu.js).

/** `asked` is what the device was asked for, in words. @typedef {{ device: GPUDevice, info: string,
 *   asked: string }} Opened */

// Names under which adapters that run on the CPU are known.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|warp|basic render/i;

/** Throws an Error whose message says what is missing. */
export async function findAdapter() {
  if (!globalThis.navigator?.gpu) {
    throw new Error(
      globalThis.isSecureContext === false
        ? "the page is not a secure context (WebGPU needs https or localhost)"
        : "this browser has no navigator.gpu",
    );
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("the browser has WebGPU and found no adapter");
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
 * @param {string} limitsJson @param {string} featuresJson @returns {Promise<Opened>}
 */
export async function openDevice(limitsJson, featuresJson) {
  const adapter = await findAdapter();
  /** @type {Record<string, number>} */
  const limits = {};
  for (const name of JSON.parse(limitsJson)) {
    const value = /** @type {Record<string, any>} */ (/** @type {unknown} */ (adapter.limits))[name];
    if (typeof value === "number") limits[name] = value;
  }
  const features = JSON.parse(featuresJson).filter((/** @type {string} */ f) => adapter.features.has(f));
  const device = await adapter.requestDevice({ requiredLimits: limits, requiredFeatures: features });
  const info = {
    ...describe(adapter),
    features,
    limits,
    identity: JSON.stringify([words(adapter.info), features, limits, navigator.userAgent]),
    subgroups_enable: features.includes("subgroups") && (await compiles(device)),
  };
  return { device, info: JSON.stringify(info), asked: limitsJson + featuresJson };
}

/** Whether the compiler knows the directive: Tint wants it before the builtins, naga refuses it.
 * @param {GPUDevice} device */
async function compiles(device) {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: "enable subgroups;" });
  return (await device.popErrorScope()) === null;
}
