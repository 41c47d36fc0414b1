// Where a file's bytes go: runs of them are cut into pieces, widened to float32 where they are halves,
// and bounded in number while they wait for the GPU. It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {(target: number, offset: number, bytes: Uint8Array) => void} Sink
 * @typedef {{ fileOffset: number, nbytes: number, target: number, offset: number, dtype: number }} Piece
 */

const F32 = 0;
const BF16 = 2;
const WORDS_A_PIECE = 5;

/** Widen 16-bit floats to 32 bits. @param {number} dtype @param {Uint8Array} bytes */
export function widen(dtype, bytes) {
  const halves = new Uint16Array(bytes.slice().buffer);
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    words[i] = dtype === BF16 ? halves[i] << 16 : halfToFloatBits(halves[i]);
  }
  return new Uint8Array(words.buffer);
}

/** IEEE 754 binary16 to the bits of binary32. @param {number} half */
function halfToFloatBits(half) {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (!fraction) return sign;
  const shift = Math.clz32(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}

/** Bounds the bytes that are queued for the GPU and not copied yet. */
export class Window {
  /** @type {{ nbytes: number, done: Promise<undefined> }[]} */
  #waiting = [];
  #current = 0;
  #alive = 0;
  peak = 0;

  /** @param {GPUQueue} queue @param {number} chunkNbytes @param {number} mostChunks */
  constructor(queue, chunkNbytes, mostChunks) {
    this.queue = queue;
    this.chunkNbytes = chunkNbytes;
    this.mostChunks = mostChunks;
  }

  /** Count bytes that were just queued; waits when a chunk is full and too many are under way.
   * @param {number} nbytes */
  async add(nbytes) {
    this.#current += nbytes;
    this.#alive += nbytes;
    this.peak = Math.max(this.peak, this.#alive);
    if (this.#current < this.chunkNbytes) return;
    // Some implementations hand pending writes to the GPU only with a submission.
    this.queue.submit([]);
    this.#waiting.push({ nbytes: this.#current, done: this.queue.onSubmittedWorkDone() });
    this.#current = 0;
    while (this.#waiting.length > this.mostChunks - 2) await this.#drop();
  }

  async drain() {
    this.queue.submit([]);
    await this.queue.onSubmittedWorkDone();
    while (this.#waiting.length) await this.#drop();
    this.#alive = 0;
  }

  async #drop() {
    const oldest = this.#waiting.shift();
    await oldest?.done;
    this.#alive -= oldest?.nbytes ?? 0;
  }
}

/** Cuts one run of bytes into pieces. */
export class Feeder {
  #pieces;
  #write;
  #index = 0;
  #at;
  #offset;
  /** @type {Uint8Array} */
  #rest = new Uint8Array(0);
  done = 0;

  /** @param {Piece[]} pieces @param {Sink} write */
  constructor(pieces, write) {
    this.#pieces = pieces;
    this.#write = write;
    this.#at = pieces[0].fileOffset;
    this.#offset = pieces[0].offset;
  }

  /** @param {Uint8Array} part */
  feed(part) {
    while (part.length && this.#index < this.#pieces.length) {
      const piece = this.#pieces[this.#index];
      const gap = Math.min(part.length, Math.max(0, piece.fileOffset - this.#at));
      const left = piece.fileOffset + piece.nbytes - this.#at - gap;
      const count = Math.min(part.length - gap, left);
      this.#put(piece, part.subarray(gap, gap + count));
      this.#at += gap + count;
      this.done += count;
      part = part.subarray(gap + count);
      if (this.#at === piece.fileOffset + piece.nbytes) this.#next();
    }
  }

  /** Whole 4-byte words (2-byte halves) are written; what is cut through waits for its other half.
   * @param {Piece} piece @param {Uint8Array} bytes */
  #put(piece, bytes) {
    if (this.#rest.length) {
      const need = Math.min(bytes.length, 4 - this.#rest.length);
      const joined = new Uint8Array(this.#rest.length + need);
      joined.set(this.#rest);
      joined.set(bytes.subarray(0, need), this.#rest.length);
      this.#rest = joined;
      bytes = bytes.subarray(need);
      const atEnd = this.#at + need === piece.fileOffset + piece.nbytes;
      if (joined.length < 4 && !atEnd) return;
      this.#rest = new Uint8Array(0);
      this.#send(piece, joined);
    }
    const unit = piece.dtype === F32 ? 4 : 2;
    const whole = bytes.length - (bytes.length % unit);
    if (whole) this.#send(piece, bytes.subarray(0, whole));
    this.#rest = bytes.slice(whole);
  }

  /** @param {Piece} piece @param {Uint8Array} bytes */
  #send(piece, bytes) {
    const wide = piece.dtype === F32 ? bytes : widen(piece.dtype, bytes);
    this.#write(piece.target, this.#offset, wide);
    this.#offset += wide.length;
  }

  #next() {
    this.#index += 1;
    this.#rest = new Uint8Array(0);
    if (this.#index < this.#pieces.length) this.#offset = this.#pieces[this.#index].offset;
  }
}

/** @param {PyBuffer} table @returns {Piece[]} */
export function decodePieces(table) {
  const view = table.getBuffer("u8");
  const numbers = new Float64Array(view.data.slice().buffer);
  view.release();
  const pieces = [];
  for (let at = 0; at < numbers.length; at += WORDS_A_PIECE) {
    const [fileOffset, nbytes, target, offset, dtype] = numbers.subarray(at, at + WORDS_A_PIECE);
    pieces.push({ fileOffset, nbytes, target, offset, dtype });
  }
  return pieces;
}
