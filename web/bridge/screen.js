// A canvas that shows a buffer: its words are copied into the canvas's texture, without the page's memory.
// It imports nothing (see gpu.js).

/** Rows of a texture in a buffer are aligned to so many bytes. */
const ROW_NBYTES = 256;

/** The context of each canvas: Firefox returns that of a worker's canvas only once.
 * @type {WeakMap<HTMLCanvasElement | OffscreenCanvas, { kind: "webgpu" | "2d", context: any }>} */
const contexts = new WeakMap();

/** @param {HTMLCanvasElement | OffscreenCanvas} canvas @param {"webgpu" | "2d"} kind */
function contextOf(canvas, kind) {
  const screen = contexts.get(canvas) ?? { kind, context: canvas.getContext(kind) };
  if (!screen.context || screen.kind !== kind) throw new Error(`no ${kind} context: it has another one`);
  contexts.set(canvas, screen);
  return screen.context;
}

/** A canvas of a WebGPU device. */
export class Screen {
  #submission;
  #buffer;
  #context;
  #width;
  #height;

  /** Throws where the canvas has another context already, or the browser has no such canvases.
   * @param {GPUDevice} device @param {Pick<import("./submission.js").Submission, "encoder" | "flush">} submission
   * @param {(name: number) => GPUBuffer} buffer
   * @param {HTMLCanvasElement | OffscreenCanvas} canvas @param {number} width @param {number} height */
  constructor(device, submission, buffer, canvas, width, height) {
    this.#submission = submission;
    this.#buffer = buffer;
    this.#width = width;
    this.#height = height;
    [canvas.width, canvas.height] = [width, height];
    /** @type {GPUCanvasContext} */
    const context = contextOf(canvas, "webgpu");
    // Chromium on macOS has no rgba8unorm canvases.
    context.configure({ device, format: "bgra8unorm", usage: GPUTextureUsage.COPY_DST, alphaMode: "opaque" });
    this.#context = context;
  }

  /** Show the buffer of that name, words of blue, green, red and 255 from the lowest byte on, once the work queued
   * so far has been done. @param {number} name */
  show(name) {
    const buffer = this.#buffer(name);
    const bytesPerRow = Math.ceil((4 * this.#width) / ROW_NBYTES) * ROW_NBYTES;
    const texture = this.#context.getCurrentTexture();
    this.#submission.encoder().copyBufferToTexture({ buffer, bytesPerRow }, { texture }, [this.#width, this.#height]);
    this.#submission.flush();
  }
}

/** Draw such words, rows of `pitch` of them, by a 2D context. @param {HTMLCanvasElement | OffscreenCanvas} canvas
 * @param {{ getBuffer(type: "u8"): { data: Uint8Array<ArrayBuffer>, release(): void } }} words a Python object
 * @param {number} width @param {number} height @param {number} pitch */
export function draw(canvas, words, width, height, pitch) {
  /** @type {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} */
  const context = contextOf(canvas, "2d");
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const image = context.createImageData(width, height);
  const view = words.getBuffer("u8");
  const { data } = view;
  for (let y = 0; y < height; y++) {
    for (let x = 0, from = 4 * y * pitch, to = 4 * y * width; x < width; x++, from += 4, to += 4) {
      image.data[to] = data[from + 2];
      image.data[to + 1] = data[from + 1];
      image.data[to + 2] = data[from];
      image.data[to + 3] = 255;
    }
  }
  view.release();
  context.putImageData(image, 0, 0);
}

/** Wait for the browser's next frame, or a quarter of a second where it draws none (a hidden page).
 * @returns {Promise<void>} */
export function nextFrame() {
  return new Promise((done) => {
    const timer = setTimeout(() => done(), 250);
    if ("requestAnimationFrame" in globalThis) {
      requestAnimationFrame(() => {
        clearTimeout(timer);
        done();
      });
    }
  });
}
