// Staging buffers, which the CPU can read, cached for the next read of the same size. It imports nothing (see
// gpu.js).

const KEPT_NBYTES = 64 << 20;

export class Staging {
  #faults;
  /** @type {Map<number, GPUBuffer[]>} */
  #unused = new Map();
  #unusedNbytes = 0;
  /** Bytes of all buffers, those in use included. */
  allocated = 0;

  /** @param {import("./faults.js").Faults} faults */
  constructor(faults) {
    this.#faults = faults;
  }

  /** @param {number} size */
  take(size) {
    const unused = this.#unused.get(size)?.pop();
    if (unused) {
      this.#unusedNbytes -= size;
      return unused;
    }
    this.allocated += size;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    return this.#faults.create({ size, usage });
  }

  /** Return an unmapped buffer. @param {GPUBuffer} buffer */
  give(buffer) {
    if (this.#unusedNbytes + buffer.size > KEPT_NBYTES) {
      this.#drop(buffer);
      return;
    }
    this.#unusedNbytes += buffer.size;
    this.#unused.set(buffer.size, [...(this.#unused.get(buffer.size) ?? []), buffer]);
  }

  /** Wait for a buffer's bytes, copy them and return the buffer. @param {GPUBuffer} buffer
   * @param {number} nbytes @param {import("./gpu.js").PyBuffer} into */
  async fill(buffer, nbytes, into) {
    try {
      await buffer.mapAsync(GPUMapMode.READ);
    } catch (error) {
      try {
        await this.#faults.granted([buffer]); // throws if there was no memory for it
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

  /** Destroy the buffers that are not in use; returns the bytes freed. */
  trim() {
    const before = this.allocated;
    for (const buffers of this.#unused.values()) buffers.forEach((buffer) => this.#drop(buffer));
    this.#unused.clear();
    this.#unusedNbytes = 0;
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
