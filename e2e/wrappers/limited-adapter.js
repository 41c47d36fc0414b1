// Runs before a worker's own code (see e2e/limited_adapter.py): its adapters show the limits and
// features that this module's address names, and no more, and its devices are held to them.
//
// Features and whatever is not below the specification's defaults the browser checks itself, since
// its device is asked for no more than the adapter shows. Buffers, bindings and workgroup memory may
// be held to less than any browser would: those are checked here, with errors as WebGPU has them (an
// error scope's or an uncaptured one, and an object that the device takes nowhere).

import { workgroupNbytes } from "./workgroup-memory.js";

const told = new URL(import.meta.url).searchParams;
const answer = told.get("answer") ?? "adapter";
const without = (told.get("without") ?? "").split(",");
/** @type {Record<string, number>} */
const most = {};
for (const [name, value] of told) if (name.startsWith("max")) most[name] = Number(value);

/** Members that stand in for those of the browser's own object.
 * @template T @param {T} object @param {Record<string, unknown>} members @returns {T} */
function show(object, members) {
  for (const [name, value] of Object.entries(members)) Object.defineProperty(object, name, { value });
  return object;
}

/** @param {GPUSupportedLimits} limits */
function capped(limits) {
  /** @type {Record<string, number>} */
  const shown = {};
  // Not Object.keys: a browser keeps them on the prototype.
  for (const name in limits) {
    const value = Reflect.get(limits, name);
    if (typeof value === "number") shown[name] = Math.min(value, most[name] ?? value);
  }
  return shown;
}

/** @param {GPUAdapter} adapter */
function limited(adapter) {
  const limits = capped(adapter.limits);
  const features = new Set([...adapter.features].filter((name) => !without.includes(name)));
  const open = adapter.requestDevice.bind(adapter);
  /** @param {GPUDeviceDescriptor} [wanted] */
  async function requestDevice(wanted = {}) {
    for (const name of wanted.requiredFeatures ?? []) {
      if (!features.has(name)) throw new TypeError(`the adapter lacks the feature ${name}`);
    }
    for (const [name, value] of Object.entries(wanted.requiredLimits ?? {})) {
      if (name in most && Number(value) > limits[name]) {
        throw new DOMException(`${name} of ${value}: the adapter has ${limits[name]}`, "OperationError");
      }
    }
    return held(await open(wanted));
  }
  return show(adapter, { limits, features, requestDevice });
}

/** @param {GPUDevice} device */
function held(device) {
  const limits = capped(device.limits);
  const [push, pop] = [device.pushErrorScope.bind(device), device.popErrorScope.bind(device)];
  const [makeBuffer, makeGroup] = [device.createBuffer.bind(device), device.createBindGroup.bind(device)];
  const makeModule = device.createShaderModule.bind(device);
  const makePipeline = device.createComputePipeline.bind(device);
  const makePipelineAsync = device.createComputePipelineAsync.bind(device);
  /** @type {WeakMap<GPUShaderModule, string>} */
  const codes = new WeakMap();
  /** @type {{ filter: GPUErrorFilter, error: GPUError | null }[]} */
  const scopes = [];

  /** An object that is invalid for a reason of the browser's, and the reason that is ours.
   * @template T @param {string} why @param {() => T} makeInvalid */
  function refused(why, makeInvalid) {
    const error = new GPUValidationError(why);
    const scope = scopes.findLast(({ filter }) => filter === "validation");
    const event = new GPUUncapturedErrorEvent("uncapturederror", { error });
    if (scope) scope.error ??= error;
    else queueMicrotask(() => device.dispatchEvent(event));
    push("validation");
    const made = makeInvalid();
    pop();
    return made;
  }

  /** Why its shader takes too much; empty if it does not. @param {GPUComputePipelineDescriptor} wanted */
  function overrun({ compute: { module, constants } }) {
    const limit = limits.maxComputeWorkgroupStorageSize;
    const nbytes = workgroupNbytes(codes.get(module) ?? "", constants ?? {});
    const told = `${nbytes} bytes of workgroup memory, and maxComputeWorkgroupStorageSize is ${limit}`;
    return nbytes > limit ? told : "";
  }

  return show(device, {
    limits,
    createShaderModule(/** @type {GPUShaderModuleDescriptor} */ wanted) {
      const made = makeModule(wanted);
      codes.set(made, wanted.code);
      return made;
    },
    createComputePipeline(/** @type {GPUComputePipelineDescriptor} */ wanted) {
      const why = overrun(wanted);
      const nowhere = { ...wanted, compute: { ...wanted.compute, entryPoint: "-" } };
      return why ? refused(why, () => makePipeline(nowhere)) : makePipeline(wanted);
    },
    async createComputePipelineAsync(/** @type {GPUComputePipelineDescriptor} */ wanted) {
      const why = overrun(wanted);
      if (why) throw new GPUPipelineError(why, { reason: "validation" });
      return makePipelineAsync(wanted);
    },
    pushErrorScope(/** @type {GPUErrorFilter} */ filter) {
      scopes.push({ filter, error: null });
      push(filter);
    },
    async popErrorScope() {
      const ours = scopes.pop()?.error;
      const theirs = await pop();
      return ours ?? theirs;
    },
    createBuffer(/** @type {GPUBufferDescriptor} */ wanted) {
      const limit = limits.maxBufferSize;
      if (wanted.size <= limit) return makeBuffer(wanted);
      const why = `a buffer of ${wanted.size} bytes, and maxBufferSize is ${limit}`;
      return refused(why, () => makeBuffer({ size: 4, usage: 0 }));
    },
    createBindGroup(/** @type {GPUBindGroupDescriptor} */ wanted) {
      // Uniforms are far smaller than any limit of a test, so that all buffers may be seen alike.
      const limit = limits.maxStorageBufferBindingSize;
      const largest = Math.max(0, ...[...wanted.entries].map(({ resource }) => nbytesOf(resource)));
      if (largest <= limit) return makeGroup(wanted);
      const why = `a binding of ${largest} bytes, and maxStorageBufferBindingSize is ${limit}`;
      return refused(why, () => makeGroup({ layout: wanted.layout, entries: [] }));
    },
  });
}

/** @param {GPUBindingResource} resource */
function nbytesOf(resource) {
  if (resource instanceof GPUBuffer) return resource.size;
  if (!("buffer" in resource)) return 0;
  return resource.size ?? resource.buffer.size - (resource.offset ?? 0);
}

if (globalThis.GPU) {
  const request = GPU.prototype.requestAdapter;
  /** @this {GPU} @param {GPURequestAdapterOptions} [options] */
  GPU.prototype.requestAdapter = async function (options) {
    if (answer === "reject") throw new DOMException("planned refusal", "OperationError");
    const core = options?.featureLevel !== "compatibility";
    if (answer === "null" || (answer === "compatibility" && core)) return null;
    const adapter = await request.call(this, options);
    return adapter && limited(adapter);
  };
}

export {};
