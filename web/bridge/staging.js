// Buffers that the CPU may read, kept for the next read of the same size. It imports nothing (see
// gpu.js).

const KEPT_NBYTES = 64 << 20;

export class Staging {
  #device;
  /** @type {Map<number, GPUBuffer[]>} */
  #kept = new Map();
  #keptNbytes = 0;
  /** Bytes of all buffers, lent ones included. */
  allocated = 0;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#device = device;
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
    return this.#device.createBuffer({ size, usage });
  }

  /** Take an unmapped buffer back. @param {GPUBuffer} buffer */
  give(buffer) {
    if (this.#keptNbytes + buffer.size > KEPT_NBYTES) {
      this.allocated -= buffer.size;
      buffer.destroy();
      return;
    }
    this.#keptNbytes += buffer.size;
    this.#kept.set(buffer.size, [...(this.#kept.get(buffer.size) ?? []), buffer]);
  }

  /** Wait for a buffer's bytes, copy them and take it back. @param {GPUBuffer} buffer
   * @param {number} nbytes @param {import("./gpu.js").PyBuffer} into */
  async fill(buffer, nbytes, into) {
    await buffer.mapAsync(GPUMapMode.READ);
    const view = into.getBuffer("u8");
    view.data.set(new Uint8Array(buffer.getMappedRange(), 0, nbytes));
    view.release();
    buffer.unmap();
    this.give(buffer);
  }

  destroy() {
    for (const kept of this.#kept.values()) for (const buffer of kept) buffer.destroy();
    this.#kept.clear();
    this.allocated = 0;
  }
}
