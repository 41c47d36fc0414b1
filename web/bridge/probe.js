// What this page or worker supports, by feature tests alone, never by the browser's name. It imports
// nothing (see gpu.js): device.js is an argument. It decides nothing.

/** @typedef {typeof import("./device.js")} Device */
/** @typedef {Record<string, unknown>} Facts */

const LIMIT_MS = 5000;
const TICKS = 10; // of a limit
const GIB = 2 ** 30;
const DATABASE = "bascule-probe";

/**
 * One JSON object with the names of Python's Capabilities; null is unknown, and `problems` says why. Never
 * rejects, and waits for no test longer than the limit.
 * @param {Device} device @param {number} [limitMs] @returns {Promise<string>}
 */
export async function probe(device, limitMs = LIMIT_MS) {
  /** @type {Record<string, string>} */
  const problems = {};
  /** The result of a test; null where it fails, with the reason in `problems`. @template T
   * @param {string} name @param {() => T | Promise<T>} test @returns {Promise<T | null>} */
  const attempt = async (name, test) => {
    try {
      return await within(Promise.resolve().then(test), limitMs);
    } catch (error) {
      problems[name] = error instanceof Error ? error.message : String(error);
      return null;
    }
  };
  const [adapter, opfs, indexeddb, webnn, quota] = await Promise.all([
    attempt("webgpu", () => adapterFacts(device)),
    attempt("opfs", opensFolder),
    attempt("indexeddb", opensDatabase),
    attempt("webnn", () => neuralDevices(problems)),
    attempt("storage", async () => (await navigator.storage?.estimate?.())?.quota),
  ]);
  return JSON.stringify({
    ...adapter,
    ...(await attempt("engine", engineFacts)),
    threads: await attempt("threads", sharesMemory),
    opfs: opfs ?? false,
    opfs_sync: await attempt("opfs_sync", hasSyncHandles),
    indexeddb: indexeddb ?? false,
    webnn,
    storage_quota_nbytes: quota,
    problems,
  });
}

/** @param {Device} device @returns {Promise<Facts>} */
async function adapterFacts(device) {
  const adapter = await device.findAdapter();
  const info = adapter.info;
  /** @type {Record<string, unknown>} */
  const limits = {};
  // Not Object.keys: the properties are on the prototype.
  for (const name in adapter.limits) {
    const value = Reflect.get(adapter.limits, name);
    if (typeof value === "number") limits[name] = value;
  }
  return {
    ...device.describe(adapter),
    is_fallback_adapter: info?.isFallbackAdapter ?? Reflect.get(adapter, "isFallbackAdapter"),
    features: [...adapter.features],
    limits,
    wgsl_features: navigator.gpu.wgslLanguageFeatures && [...navigator.gpu.wgslLanguageFeatures],
    subgroup_min_size: info?.subgroupMinSize,
    subgroup_max_size: info?.subgroupMaxSize,
  };
}

/** The facts that need no waiting. @returns {Facts} */
function engineFacts() {
  const memory = Reflect.get(navigator, "deviceMemory");
  return {
    engine: engineName(),
    build: navigator.userAgent,
    jspi: ["Suspending", "promising"].every((name) => typeof Reflect.get(WebAssembly, name) === "function"),
    n_cores: navigator.hardwareConcurrency,
    // v128 from an i32, then dropped; with a relaxed swizzle of two of them in between.
    // Whether it reports the processor's pressure (pressure.js).
    compute_pressure: Reflect.get(globalThis, "PressureObserver")?.knownSources?.includes("cpu") ?? false,
    wasm_simd: validates([...SPLAT, DROP]),
    wasm_relaxed_simd: validates([...SPLAT, ...SPLAT, 0xfd, 0x80, 0x02, DROP]),
    device_memory_nbytes: typeof memory === "number" ? memory * GIB : null,
  };
}

/** The JavaScript engine, by properties that only its errors have. */
function engineName() {
  const error = new Error();
  if (Object.hasOwn(error, "sourceURL")) return "javascriptcore";
  if ("fileName" in error) return "spidermonkey";
  return typeof Reflect.get(Intl, "v8BreakIterator") === "function" ? "v8" : null;
}

/** Whether workers can share a WASM memory: the page must be cross-origin isolated. */
function sharesMemory() {
  if (globalThis.crossOriginIsolated !== true || !globalThis.SharedArrayBuffer) return false;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  return memory.buffer instanceof SharedArrayBuffer;
}

const SPLAT = [0x41, 0x00, 0xfd, 0x0f]; // i32.const 0, i8x16.splat
const DROP = 0x1a;

/** Whether the engine validates a module of one function with this body. @param {number[]} body */
function validates(body) {
  const code = [0x00, ...body, 0x0b]; // no locals, the body, end
  const sections = [
    [0x01, 0x04, 0x01, 0x60, 0x00, 0x00], // one type: nothing to nothing
    [0x03, 0x02, 0x01, 0x00], // one function of it
    [0x0a, code.length + 2, 0x01, code.length, ...code],
  ];
  return WebAssembly.validate(new Uint8Array([0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections.flat()]));
}

async function opensFolder() {
  if (!navigator.storage?.getDirectory) throw new Error("this browser has no navigator.storage.getDirectory");
  await navigator.storage.getDirectory();
  return true;
}

/** False outside workers, which alone have them. */
function hasSyncHandles() {
  return "createSyncAccessHandle" in (globalThis.FileSystemFileHandle?.prototype ?? {});
}

/** A private window may have the API and fail to open. @returns {Promise<boolean>} */
function opensDatabase() {
  return new Promise((resolve, reject) => {
    if (!globalThis.indexedDB) return reject(new Error("this browser has no indexedDB"));
    const request = indexedDB.open(DATABASE);
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      request.result.close();
      indexedDB.deleteDatabase(DATABASE);
      resolve(true);
    };
  });
}

/** The kinds of device for which WebNN makes a context. @param {Record<string, string>} problems */
async function neuralDevices(problems) {
  const ml = Reflect.get(navigator, "ml");
  if (!ml) {
    problems.webnn = "this browser has no navigator.ml";
    return [];
  }
  const devices = [];
  for (const deviceType of ["cpu", "gpu", "npu"]) {
    try {
      const context = await ml.createContext({ deviceType });
      context.destroy?.();
      devices.push(deviceType);
    } catch (error) {
      problems.webnn = error instanceof Error ? error.message : String(error);
    }
  }
  return devices;
}

/** Rejects after the limit. @template T @param {Promise<T>} work @param {number} limitMs
 * @returns {Promise<T>} */
function within(work, limitMs) {
  return new Promise((resolve, reject) => {
    let remaining = TICKS;
    // While Python's start blocks this thread no answer arrives: that counts as one tick.
    const timer = setInterval(() => {
      remaining -= 1;
      if (remaining > 0) return;
      clearInterval(timer);
      reject(new Error(`no answer within ${limitMs} ms`));
    }, limitMs / TICKS);
    work.then(resolve, reject).finally(() => clearInterval(timer));
  });
}
