// A tape on the page's side: decoded once, then replayed with one call. py/bascule/backend/webgpu/gpu.py
// describes its format. It imports nothing (see gpu.js).

/**
 * A bind group's shader file and buffers, with their names when it was recorded.
 * @typedef {{ label: string, entries: { name: number, buffer: GPUBuffer }[] }} Group
 * @typedef {{ bindGroups: GPUBindGroup[], pipelines: GPUComputePipeline[], steps: Int32Array,
 *   groups: Group[], checked: number }} Tape
 * @typedef {{
 *   buffer(name: number): GPUBuffer,
 *   pipeline(name: number): GPUComputePipeline,
 *   group(pipeline: number, entries: GPUBindGroupEntry[]): GPUBindGroup,
 * }} Lookup
 */

const WORDS_A_STEP = 5;

/**
 * Make the bind groups and resolve the pipelines.
 * @param {Int32Array} words @param {Lookup} lookup @returns {Tape}
 */
export function decode(words, lookup) {
  const [groupCount, stepCount] = words;
  let at = 2;
  const bindGroups = [];
  const groups = [];
  for (let g = 0; g < groupCount; g++) {
    const pipeline = words[at];
    const count = words[at + 1];
    at += 2;
    const entries = [];
    const used = [];
    for (let e = 0; e < count; e++, at += 4) {
      const buffer = lookup.buffer(words[at + 1]);
      used.push({ name: words[at + 1], buffer });
      const [offset, size] = [4 * words[at + 2], 4 * words[at + 3]];
      entries.push({ binding: words[at], resource: { buffer, offset, size } });
    }
    bindGroups.push(lookup.group(pipeline, entries));
    groups.push({ label: lookup.pipeline(pipeline).label, entries: used });
  }
  if (words.length !== at + stepCount * WORDS_A_STEP) {
    throw new Error("the tape ends in the middle of a record.");
  }
  const steps = words.slice(at);
  const pipelines = [];
  for (let s = 0; s < steps.length; s += WORDS_A_STEP) pipelines.push(lookup.pipeline(steps[s]));
  return { bindGroups, pipelines, steps, groups, checked: -1 };
}

/**
 * The shader file of a bind group whose buffer has been freed; empty if none has. `frees` counts freed
 * buffers: while it is unchanged nothing is checked again.
 * @param {Tape} tape @param {number} frees @param {(name: number) => boolean} isLive
 */
export function staleLabel(tape, frees, isLive) {
  if (tape.checked === frees) return "";
  const stale = tape.groups.find(({ entries }) => !entries.every(({ name }) => isLive(name)));
  if (!stale) tape.checked = frees;
  return stale?.label ?? "";
}

/**
 * Do the packed writes of a replay (pack_writes in gpu.py).
 * @param {GPUQueue} queue @param {Uint8Array<ArrayBuffer>} packed
 * @param {(name: number) => GPUBuffer} buffer
 */
export function write(queue, packed, buffer) {
  if (!packed.byteLength) return;
  // Python's bytes may start at any address: an Int32Array over them might not be aligned.
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const count = view.getInt32(0, true);
  let data = 4 + 12 * count;
  for (let w = 0; w < count; w++) {
    const [name, offset, nbytes] = [0, 4, 8].map((o) => view.getInt32(4 + 12 * w + o, true));
    queue.writeBuffer(buffer(name), offset, packed, data, nbytes);
    data += nbytes;
  }
}

/**
 * Encode every dispatch in one pass.
 * @param {GPUCommandEncoder} encoder @param {Tape} tape
 */
export function encode(encoder, { bindGroups, pipelines, steps }) {
  const pass = encoder.beginComputePass();
  for (let s = 0, at = 0; at < steps.length; s++, at += WORDS_A_STEP) {
    pass.setPipeline(pipelines[s]);
    pass.setBindGroup(0, bindGroups[steps[at + 1]]);
    pass.dispatchWorkgroups(steps[at + 2], steps[at + 3], steps[at + 4]);
  }
  pass.end();
}
