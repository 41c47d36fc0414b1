// How much workgroup memory a shader takes. naga, and so Firefox, does not hold shaders to the limit.

const ARRAY = /var<workgroup>\s+\w+\s*:\s*array<(\w+)(?:<(\w+)>)?\s*,([^;]+)>;/g;
const NUMBER = /(?:override|const)\s+(\w+)\s*(?::\s*\w+)?\s*=\s*([^;]+);/g;
/** @type {Record<string, number>} */
const WORDS = { f32: 1, u32: 1, i32: 1, vec2f: 2, vec4f: 4, vec4u: 4, mat4x4f: 16 };

/**
 * Bytes of all arrays of numbers and vectors: a lower bound, for structures are not counted.
 * @param {string} wgsl @param {Record<string, number>} constants of overrides
 */
export function workgroupNbytes(wgsl, constants) {
  const code = wgsl.replaceAll(/\/\/.*/g, "");
  const declared = new Map([...code.matchAll(NUMBER)].map(([, name, value]) => [name, value]));

  /** Of a constant expression: numbers, names and arithmetic. @param {string} expression @returns {number} */
  function valueOf(expression) {
    const plain = expression
      .replaceAll(/\b(\d+)[ui]\b/g, "$1")
      .replaceAll(/\b[A-Za-z_]\w*\b/g, (name) => String(constants[name] ?? valueOf(declared.get(name) ?? "NaN")));
    return /^[\d\s()+*/%-]+$/.test(plain) ? Math.trunc(Function(`return ${plain}`)()) : 0;
  }

  let nbytes = 0;
  for (const [, type, of, count] of code.matchAll(ARRAY)) {
    const words = of === "f16" ? 2 : (WORDS[type] ?? 0);
    nbytes += 4 * words * valueOf(count);
  }
  return nbytes;
}
