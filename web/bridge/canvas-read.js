// Reads a buffer within one call, for plain code, which cannot wait: its words become the pixels of an opaque
// WebGPU canvas, which is drawn into a 2D canvas, whose pixels can be read at once. A canvas preserves three
// bytes of four exactly (alpha is premultiplied or dropped): the fourth is read in a second pass, as the first
// byte of the words one byte further on. It imports nothing (see gpu.js).

/** @typedef {Pick<import("./submission.js").Submission, "encoder" | "flush">} Submission */

const WIDTH = 256; // words; rows in a buffer must be multiples of 256 bytes
const HEIGHT = 256;
const ROW_NBYTES = 4 * WIDTH;
const CHUNK_NBYTES = HEIGHT * ROW_NBYTES;
/** The row below the data holds the number of this copy: it is there only if the device has executed the
 * commands that were encoded with it. */
const TICKET_ROW = HEIGHT;

export class CanvasReader {
  /** Bytes of its buffers and textures. */
  static nbytes = 3 * CHUNK_NBYTES;
  #device;
  #submission;
  #ticket;
  #bytes;
  #shifted;
  #source;
  /** @type {GPUCanvasContext} */
  #context;
  /** @type {OffscreenCanvasRenderingContext2D} */
  #host;
  #number = 0;

  /** Throws where an OffscreenCanvas has no WebGPU, or does not preserve what is copied to it.
   * @param {GPUDevice} device @param {Submission} submission */
  constructor(device, submission) {
    this.#device = device;
    this.#submission = submission;
    this.#source = new OffscreenCanvas(WIDTH, HEIGHT + 1);
    const context = this.#source.getContext("webgpu");
    const host = new OffscreenCanvas(WIDTH, HEIGHT + 1).getContext("2d", { willReadFrequently: true });
    if (!context || !host) throw new Error("an OffscreenCanvas has no WebGPU here");
    // Chromium on macOS has no rgba8unorm canvases.
    context.configure({ device, format: "bgra8unorm", usage: GPUTextureUsage.COPY_DST, alphaMode: "opaque" });
    [this.#context, this.#host] = [context, host];
    const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.#ticket = device.createBuffer({ size: 4, usage });
    this.#shifted = device.createBuffer({ size: CHUNK_NBYTES, usage });
    this.#bytes = device.createTexture({
      size: [ROW_NBYTES, HEIGHT],
      format: "r8unorm",
      usage: GPUTextureUsage.COPY_SRC | GPUTextureUsage.COPY_DST,
    });
    this.#prove(usage);
  }

  /** Fill `into`, whole words, with a buffer's bytes from `offset` on, as they are after all work queued so far.
   * Throws where the device has not executed that work.
   * @param {GPUBuffer} buffer @param {number} offset @param {Uint8Array} into */
  read(buffer, offset, into) {
    for (let at = 0; at < into.length; at += CHUNK_NBYTES) {
      const chunk = into.subarray(at, at + CHUNK_NBYTES);
      this.#copy({ buffer, offset: offset + at }, chunk.length / 4);
      this.#readPixels(chunk, 0);
      this.#shift(buffer, offset + at, chunk.length);
      this.#copy({ buffer: this.#shifted, offset: 0 }, chunk.length / 4);
      this.#readPixels(chunk, 3);
    }
  }

  /** Copy words into the canvas's texture, with the ticket of this copy.
   * @param {{ buffer: GPUBuffer, offset: number }} source @param {number} nWords */
  #copy(source, nWords) {
    this.#number = (this.#number % 0xffff) + 1;
    const ticket = new Uint8Array([this.#number & 255, this.#number >> 8, 0, 0]);
    this.#device.queue.writeBuffer(this.#ticket, 0, ticket);
    const texture = this.#context.getCurrentTexture();
    const encoder = this.#submission.encoder();
    copyRows(encoder, source, texture, WIDTH, nWords);
    encoder.copyBufferToTexture({ buffer: this.#ticket }, { texture, origin: [0, TICKET_ROW] }, [1, 1]);
    this.#submission.flush();
  }

  /** Copy so many bytes but the first three into `#shifted`: copies between buffers go by words, those of
   * textures of one byte a texel by bytes. @param {GPUBuffer} buffer @param {number} offset @param {number} nbytes */
  #shift(buffer, offset, nbytes) {
    const encoder = this.#submission.encoder();
    copyRows(encoder, { buffer, offset: offset + 3 }, this.#bytes, ROW_NBYTES, nbytes - 3);
    const to = { buffer: this.#shifted, bytesPerRow: ROW_NBYTES };
    const rows = Math.ceil(nbytes / ROW_NBYTES);
    encoder.copyTextureToBuffer({ texture: this.#bytes }, to, [ROW_NBYTES, rows]);
  }

  /** Read the canvas's pixels: their three colours from byte 0 on, or the first one as byte 3.
   * @param {Uint8Array} into @param {0 | 3} byte */
  #readPixels(into, byte) {
    this.#host.drawImage(this.#source, 0, 0);
    const [, high, low] = this.#host.getImageData(0, TICKET_ROW, 1, 1).data;
    if (low + 256 * high !== this.#number) throw new Error("the device has not executed the work");
    const { data } = this.#host.getImageData(0, 0, WIDTH, Math.ceil(into.length / ROW_NBYTES));
    // The texture's order is blue, green, red.
    for (let i = 0; i < into.length; i += 4) {
      into[i + byte] = data[i + 2];
      if (byte) continue;
      into[i + 1] = data[i + 1];
      into[i + 2] = data[i];
    }
  }

  /** Check that every value of every byte is preserved. @param {GPUBufferUsageFlags} usage */
  #prove(usage) {
    const expected = new Uint8Array(CHUNK_NBYTES);
    for (let i = 0; i < expected.length; i += 4) {
      const [x, y] = [(i >> 2) % WIDTH, Math.floor(i / ROW_NBYTES)];
      expected.set([x, y, x ^ y, x + 3 * y], i);
    }
    const buffer = this.#device.createBuffer({ size: expected.length, usage });
    this.#device.queue.writeBuffer(buffer, 0, expected);
    const bytes = new Uint8Array(expected.length);
    this.read(buffer, 0, bytes);
    buffer.destroy();
    if (bytes.some((byte, i) => byte !== expected[i])) throw new Error("a canvas does not preserve bytes");
  }
}

/** Copy texels from a buffer: complete rows, then the remainder.
 * @param {GPUCommandEncoder} encoder @param {{ buffer: GPUBuffer, offset: number }} source
 * @param {GPUTexture} texture @param {number} width @param {number} n */
function copyRows(encoder, { buffer, offset }, texture, width, n) {
  const rows = Math.floor(n / width);
  const remainder = n % width;
  if (rows) encoder.copyBufferToTexture({ buffer, offset, bytesPerRow: ROW_NBYTES }, { texture }, [width, rows]);
  if (!remainder) return;
  const end = { buffer, offset: offset + rows * ROW_NBYTES };
  encoder.copyBufferToTexture(end, { texture, origin: [0, rows] }, [remainder, 1]);
}
