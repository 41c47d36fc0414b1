// A browser whose compiler gets the kernels wrong that this module's address names: they normalise by a
// factor of 1.2. See e2e/limited_adapter.py.
const kernels = (new URL(import.meta.url).searchParams.get("kernels") ?? "").split(",");
const createShaderModule = GPUDevice.prototype.createShaderModule;

/** @param {GPUShaderModuleDescriptor} descriptor */
GPUDevice.prototype.createShaderModule = function (descriptor) {
  const { code } = descriptor;
  if (!kernels.some((name) => code.includes(`// ${name}: `))) return createShaderModule.call(this, descriptor);
  const wrong = code.replace("rstd = 1.0 /", "rstd = 1.2 /");
  if (wrong === code) throw new Error("the kernel has no such line");
  return createShaderModule.call(this, { ...descriptor, code: wrong });
};
