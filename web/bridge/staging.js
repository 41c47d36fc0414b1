// Buffers that the CPU may read, kept for the next read of the same size. It imports nothing (see
// gpu.js).

const KEPT_NBYTES = 64 << 20;

export class Staging {
  #faults;
  /** @type {Map<number, GPUBuffer[]>} */
  #kept = new Map();
  #keptNbytes = 0;
  /** Bytes of all buffers, lent ones included. */
  allocated = 0;

  /** @param {import("./faults.js").Faults} faults */
  constructor(faults) {
    this.#faults = faults;
  }

  /** @param {number} size */
  take(size) {
    const kept = this.#kept.get(size)?.pop();
    if (kept) {
      this.#keptNbytes -= size;
      return kept;
    }
    this.allocated += size;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    return this.#faults.create({ size, usage });
  }

  /** Take an unmapped buffer back. @param {GPUBuffer} buffer */
  give(buffer) {
    if (this.#keptNbytes + buffer.size > KEPT_NBYTES) {
      this.#drop(buffer);
      return;
    }
    this.#keptNbytes += buffer.size;
    this.#kept.set(buffer.size, [...(this.#kept.get(buffer.size) ?? []), buffer]);
  }

  /** Wait for a buffer's bytes, copy them and take it back. @param {GPUBuffer} buffer
   * @param {number} nbytes @param {import("./gpu.js").PyBuffer} into */
  async fill(buffer, nbytes, into) {
    try {
      await buffer.mapAsync(GPUMapMode.READ);
    } catch (error) {
      try {
        await this.#faults.granted([buffer]); // was there memory for it at all?
      } finally {
        this.#drop(buffer);
      }
      throw error;
    }
    const view = into.getBuffer("u8");
    view.data.set(new Uint8Array(buffer.getMappedRange(), 0, nbytes));
    view.release();
    buffer.unmap();
    this.give(buffer);
  }

  /** Destroy what is not in use; returns how many bytes that were. */
  trim() {
    const before = this.allocated;
    for (const kept of this.#kept.values()) kept.forEach((buffer) => this.#drop(buffer));
    this.#kept.clear();
    this.#keptNbytes = 0;
    return before - this.allocated;
  }

  destroy() {
    this.trim();
    this.allocated = 0;
  }

  /** @param {GPUBuffer} buffer */
  #drop(buffer) {
    this.allocated -= buffer.size;
    this.#faults.destroy(buffer);
  }
}
