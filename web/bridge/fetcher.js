// Model bytes from the network: small files whole, weights by chunks straight into GPU buffers (or
// into Python's memory where there is no GPU). No chunk is kept. It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").Gpu} Gpu
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {(target: number, offset: number, bytes: Uint8Array) => void} Sink
 * @typedef {{ fileOffset: number, nbytes: number, target: number, offset: number, dtype: number }} Piece
 */

const F32 = 0;
const BF16 = 2;
const WORDS_A_PIECE = 5;
const READ_NBYTES = 1 << 20;

/** An error that Python turns into its own by these fields, read from the message.
 * @param {string} kind @param {string} what @param {number} offset */
function fault(kind, what, offset) {
  return new Error(JSON.stringify({ kind, what, offset }));
}

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
class Window {
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

/** Reads a model folder's files from a server. */
export class Fetcher {
  /** @type {Map<number, AbortController>} */
  #jobs = new Map();
  peakChunkNbytes = 0;

  /** Part of a file, or all of it (nbytes < 0).
   * @param {string} url @param {number} offset @param {number} nbytes @param {number} most */
  async read(url, offset, nbytes, most) {
    const { reader, skip } = await this.#open(url, offset, nbytes, undefined);
    const end = nbytes < 0 ? Infinity : nbytes;
    /** @type {Uint8Array[]} */
    const parts = [];
    let total = 0;
    for await (const part of body(reader, skip, end, offset)) {
      parts.push(part.slice()); // the part itself is overwritten by the next one
      total += part.length;
      if (total > most) throw fault("large", "it is too large for what it should hold", offset);
    }
    if (nbytes >= 0 && total < nbytes) throw short(offset + total, nbytes - total);
    const whole = new Uint8Array(total);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  /** A file's size, from the answer to a range of one byte. @param {string} url */
  async size(url) {
    const { response, reader } = await this.#open(url, 0, 1, undefined);
    await reader.cancel();
    const range = response.headers.get("content-range")?.split("/")[1];
    const told = response.status === 206 ? range : response.headers.get("content-length");
    if (!told || !/^\d+$/.test(told)) throw fault("source", "the server does not tell the size", 0);
    return Number(told);
  }

  /**
   * Copy pieces of a file to their targets.
   * @param {number} job a name for `abort` @param {string} url
   * @param {PyBuffer} table float64: file offset, nbytes, target, target offset, dtype a piece
   * @param {Gpu | null} gpu @param {Sink | null} sink @param {(done: number) => void} report
   * @param {number} chunkNbytes @param {number} mostChunks
   */
  async stream(job, url, table, gpu, sink, report, chunkNbytes, mostChunks) {
    const pieces = decodePieces(table);
    if (!pieces.length) return;
    const abort = new AbortController();
    this.#jobs.set(job, abort);
    const window = gpu && new Window(gpu.queue, chunkNbytes, mostChunks);
    try {
      const start = pieces[0].fileOffset;
      const last = pieces[pieces.length - 1];
      const nbytes = last.fileOffset + last.nbytes - start;
      const { reader, skip } = await this.#open(url, start, nbytes, abort.signal);
      const feeder = new Feeder(pieces, (target, offset, bytes) => {
        if (gpu) gpu.writeBytes(target, offset, /** @type {Uint8Array<ArrayBuffer>} */ (bytes));
        else sink?.(target, offset, bytes);
      });
      let received = 0;
      let reported = 0;
      for await (const part of body(reader, skip, nbytes, start)) {
        received += part.length;
        feeder.feed(part);
        if (window) await window.add(part.length);
        if (received - reported >= chunkNbytes) report(feeder.done);
        if (received - reported >= chunkNbytes) reported = received;
      }
      if (received < nbytes) throw short(start + received, nbytes - received);
      await window?.drain();
      report(feeder.done);
    } finally {
      abort.abort();
      this.#jobs.delete(job);
      this.peakChunkNbytes = Math.max(this.peakChunkNbytes, window?.peak ?? 0);
    }
  }

  /** @param {number} job */
  abort(job) {
    this.#jobs.get(job)?.abort();
  }

  /**
   * @param {string} url @param {number} offset @param {number} nbytes
   * @param {AbortSignal | undefined} signal
   */
  async #open(url, offset, nbytes, signal) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (offset || nbytes >= 0) headers.Range = `bytes=${offset}-${nbytes < 0 ? "" : offset + nbytes - 1}`;
    let response;
    try {
      // Weights bypass the HTTP cache: on its way there a whole file would be held a second time.
      response = await fetch(url, { headers, signal, cache: signal ? "no-store" : "default" });
    } catch (error) {
      if (signal?.aborted) throw fault("cancelled", "the load was cancelled", offset);
      throw fault("source", `the connection failed (${/** @type {Error} */ (error).message})`, offset);
    }
    const { status } = response;
    if (status === 404 || status === 410) throw fault("missing", "there is no such file", offset);
    if (status !== 200 && status !== 206) throw fault("source", `the server answered ${status}`, offset);
    // Servers that other origins ask may hide this header; then the bytes are taken as asked for.
    const range = response.headers.get("content-range");
    if (status === 206 && range && !range.startsWith(`bytes ${offset}-`)) {
      throw fault("source", `the server sent another range (${range})`, offset);
    }
    if (!response.body) throw fault("source", "the server sent no body", offset);
    return { response, reader: openReader(response.body), skip: status === 200 ? offset : 0 };
  }
}

/** Cuts one run of bytes into pieces. */
class Feeder {
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
function decodePieces(table) {
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

/**
 * A body as a reader of one buffer that is filled again and again: fresh arrays for every part would
 * wait for the garbage collector by the size of the whole file.
 * @typedef {{ read(): Promise<Uint8Array | undefined>, cancel(): Promise<void> }} BodyReader
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream @returns {BodyReader}
 */
function openReader(stream) {
  try {
    const reader = stream.getReader({ mode: "byob" });
    let buffer = new ArrayBuffer(READ_NBYTES);
    return {
      async read() {
        const { value, done } = await reader.read(new Uint8Array(buffer));
        if (value) buffer = value.buffer;
        return done ? undefined : value;
      },
      cancel: () => reader.cancel(),
    };
  } catch {
    // This browser's bodies cannot fill a given buffer.
    const reader = stream.getReader();
    return { read: async () => (await reader.read()).value, cancel: () => reader.cancel() };
  }
}

/** The bytes wanted of a body: `skip` first ones left out, at most `most`. A part lasts until the
 * next one is asked for.
 * @param {BodyReader} reader @param {number} skip @param {number} most @param {number} offset */
async function* body(reader, skip, most, offset) {
  let given = 0;
  try {
    while (given < most) {
      const value = await reader.read();
      if (!value) return;
      const from = Math.min(skip, value.length);
      skip -= from;
      const part = value.subarray(from, Math.min(value.length, from + most - given));
      given += part.length;
      if (part.length) yield part;
    }
  } catch (error) {
    const { name, message } = /** @type {Error} */ (error);
    if (name === "AbortError") throw fault("cancelled", "the load was cancelled", offset + given);
    throw fault("source", `the connection failed (${message})`, offset + given);
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** @param {number} offset @param {number} missing */
function short(offset, missing) {
  return fault("source", `the server sent too little: ${missing} bytes missing`, offset);
}
