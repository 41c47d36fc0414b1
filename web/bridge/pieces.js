// Where a file's bytes go: chunks are cut into pieces, 16-bit floats are widened to float32, and the bytes
// that wait for the GPU are bounded. It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {(target: number, offset: number, bytes: Uint8Array) => void} Sink
 * @typedef {{ fileOffset: number, nbytes: number, target: number, offset: number, dtype: number }} Piece
 */

// The numbers of source_browser.py. Raw bytes, blocks above all, are copied unchanged; as float32, they are
// written 4 at a time, and the last 4 are padded with zeros.
const F32 = 0;
const BF16 = 2;
const RAW = 3;
const WORDS_A_PIECE = 5;

/** Widen 16-bit floats to 32 bits. @param {number} dtype @param {Uint8Array} bytes */
export function widen(dtype, bytes) {
  const halfWords = new Uint16Array(bytes.slice().buffer);
  const floatWords = new Uint32Array(halfWords.length);
  for (let i = 0; i < halfWords.length; i++) {
    floatWords[i] = dtype === BF16 ? halfWords[i] << 16 : halfToFloatBits(halfWords[i]);
  }
  return new Uint8Array(floatWords.buffer);
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
  #queuedNbytes = 0;

  /** @param {GPUQueue} queue */
  constructor(queue) {
    this.queue = queue;
  }

  /** Count bytes that were just queued, and wait until at most `maxNbytes` are queued. Returns how many
   * there were before the wait. @param {number} nbytes @param {number} maxNbytes */
  async add(nbytes, maxNbytes) {
    this.#queuedNbytes += nbytes;
    const queuedNbytes = this.#queuedNbytes;
    // Some implementations pass pending writes to the GPU only with a submission.
    this.queue.submit([]);
    this.#waiting.push({ nbytes, done: this.queue.onSubmittedWorkDone() });
    while (this.#queuedNbytes > maxNbytes) {
      const oldest = this.#waiting.shift();
      await oldest?.done;
      this.#queuedNbytes -= oldest?.nbytes ?? 0;
    }
    return queuedNbytes;
  }
}

/** Writes the parts of chunks that belong to pieces. Chunks may arrive in any order and split an element:
 * its bytes are buffered until it is complete. */
export class Scatter {
  #pieces;
  #write;
  /** @type {Map<string, { bytes: Uint8Array<ArrayBuffer>, nReceived: number }>} */
  #cut = new Map();
  done = 0;

  /** @param {Piece[]} pieces @param {Sink} write */
  constructor(pieces, write) {
    this.#pieces = pieces;
    this.#write = write;
  }

  /** @param {number} start of the chunk in the file @param {Uint8Array<ArrayBuffer>} chunk */
  feed(start, chunk) {
    const end = start + chunk.length;
    this.#pieces.forEach((piece, index) => {
      const from = Math.max(start, piece.fileOffset);
      const to = Math.min(end, piece.fileOffset + piece.nbytes);
      if (from >= to) return;
      this.#put(index, from - piece.fileOffset, chunk.subarray(from - start, to - start));
      this.done += to - from;
    });
  }

  /** @param {number} index @param {number} at in the piece @param {Uint8Array<ArrayBuffer>} bytes */
  #put(index, at, bytes) {
    const piece = this.#pieces[index];
    const unit = isCopied(piece) ? 4 : 2;
    const head = Math.min(bytes.length, (unit - (at % unit)) % unit);
    const tail = (bytes.length - head) % unit;
    if (head) this.#join(index, at, unit, bytes.subarray(0, head));
    const middle = bytes.subarray(head, bytes.length - tail);
    if (middle.length) this.#send(piece, at + head, middle);
    if (tail) this.#join(index, at + bytes.length - tail, unit, bytes.subarray(bytes.length - tail));
  }

  /** @param {number} index @param {number} at @param {number} unit @param {Uint8Array} bytes */
  #join(index, at, unit, bytes) {
    const start = at - (at % unit);
    const key = `${index}:${start}`;
    const cut = this.#cut.get(key) ?? { bytes: new Uint8Array(unit), nReceived: 0 };
    cut.bytes.set(bytes, at - start);
    cut.nReceived += bytes.length;
    this.#cut.set(key, cut);
    const piece = this.#pieces[index];
    if (cut.nReceived < Math.min(unit, piece.nbytes - start)) return;
    this.#cut.delete(key);
    this.#send(piece, start, cut.bytes);
  }

  /** @param {Piece} piece @param {number} at @param {Uint8Array<ArrayBuffer>} bytes */
  #send(piece, at, bytes) {
    if (isCopied(piece)) this.#write(piece.target, piece.offset + at, bytes);
    else this.#write(piece.target, piece.offset + 2 * at, widen(piece.dtype, bytes));
  }
}

/** @param {Piece} piece */
function isCopied({ dtype }) {
  return dtype === F32 || dtype === RAW;
}

/** How many bytes are missing of a file of `nbytes` for these pieces. @param {Piece[]} pieces
 * @param {number} nbytes */
export function lacking(pieces, nbytes) {
  return pieces.reduce((nbytesMissing, piece) => Math.max(nbytesMissing, piece.fileOffset + piece.nbytes - nbytes), 0);
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

/** Chunks in the order in which pieces need them; then, up to `count`, those that no piece needs.
 * @param {Piece[]} pieces @param {number} chunkNbytes @param {number} count */
export function chunkOrder(pieces, chunkNbytes, count) {
  /** @type {Set<number>} */
  const order = new Set();
  for (const { fileOffset, nbytes } of pieces) {
    const last = Math.ceil((fileOffset + nbytes) / chunkNbytes);
    for (let index = Math.floor(fileOffset / chunkNbytes); index < last; index++) order.add(index);
  }
  for (let index = 0; index < count; index++) order.add(index);
  return [...order];
}

/** Counts the complete pieces from the first on; call it once for each chunk. @param {Piece[]} pieces
 * @returns {(start: number, nbytes: number) => number} */
export function leading(pieces) {
  const remaining = pieces.map(({ nbytes }) => nbytes);
  let ready = 0;
  return (start, nbytes) => {
    pieces.forEach(({ fileOffset, nbytes: size }, index) => {
      const from = Math.max(start, fileOffset);
      const to = Math.min(start + nbytes, fileOffset + size);
      remaining[index] -= Math.max(0, to - from);
    });
    while (ready < remaining.length && remaining[ready] <= 0) ready += 1;
    return ready;
  };
}
