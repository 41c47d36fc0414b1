// Runs before a worker's own code (see e2e/limited_adapter.py): its engine takes no WebAssembly
// module that uses SIMD, as those of before 2021 (Safari before 16.4) do.

const V128 = 0x7b;
const PREFIX = 0xfd; // of all instructions on vectors
const [CODE, SMALL] = [10, 64];

/** Whether a module has vectors among its functions' locals, as all but tiny ones have that use them.
 * @param {BufferSource} source */
function usesSimd(source) {
  const bytes = ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source);
  if (bytes.length < SMALL) return bytes.includes(PREFIX);
  let at = 8; // past the magic number and the version
  const number = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const kind = bytes[at++];
    const length = number();
    const end = at + length;
    for (let functions = kind === CODE ? number() : 0; functions > 0; functions--) {
      const size = number();
      const next = at + size;
      for (let groups = number(); groups > 0; groups--) {
        number(); // so many locals of one type
        if (bytes[at++] === V128) return true;
      }
      at = next;
    }
    at = end;
  }
  return false;
}

/** @param {BufferSource} source */
function check(source) {
  if (usesSimd(source)) throw new WebAssembly.CompileError("Wasm SIMD unsupported");
}

const { validate, compile, instantiate, Module } = WebAssembly;

/** @param {[BufferSource, ...any]} given */
WebAssembly.validate = (...given) => !usesSimd(given[0]) && Reflect.apply(validate, WebAssembly, given);
/** @param {[BufferSource, ...any]} given */
WebAssembly.compile = async (...given) => {
  check(given[0]);
  return Reflect.apply(compile, WebAssembly, given);
};
/** @param {[any, ...any]} given @returns {Promise<any>} */
WebAssembly.instantiate = async (...given) => {
  if (!(given[0] instanceof Module)) check(given[0]);
  return Reflect.apply(instantiate, WebAssembly, given);
};
WebAssembly.Module = new Proxy(Module, {
  construct(target, given) {
    check(given[0]);
    return Reflect.construct(target, given);
  },
});

export {};
