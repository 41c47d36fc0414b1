// The waveform of a recording, and how far it has been transcribed.

export class Waveform {
  #canvas;
  /** The lowest and the highest sample of each column. */
  #peaks = new Float32Array();

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** @param {Float32Array} samples */
  set(samples) {
    const width = this.#canvas.width;
    this.#peaks = new Float32Array(2 * width);
    for (let x = 0; x < width; x++) {
      const end = Math.max(Math.floor(((x + 1) * samples.length) / width), Math.floor((x * samples.length) / width) + 1);
      let [low, high] = [1, -1];
      for (let i = Math.floor((x * samples.length) / width); i < Math.min(end, samples.length); i++) {
        low = Math.min(low, samples[i]);
        high = Math.max(high, samples[i]);
      }
      this.#peaks.set([low, high], 2 * x);
    }
    this.draw(0);
  }

  /** @param {number} done between 0 and 1 */
  draw(done) {
    const { width, height } = this.#canvas;
    const context = this.#canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(this.#canvas);
    context.clearRect(0, 0, width, height);
    for (let x = 0; x < width && 2 * x < this.#peaks.length; x++) {
      const [low, high] = this.#peaks.subarray(2 * x, 2 * x + 2);
      context.fillStyle = x < done * width ? style.color : style.borderTopColor;
      const top = ((1 - high) * height) / 2;
      context.fillRect(x, top, 1, Math.max(1, ((high - low) * height) / 2));
    }
  }
}
