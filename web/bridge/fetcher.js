// Model bytes from the network: small files whole, weights by chunks straight into GPU buffers (or
// into Python's memory where there is no GPU). No chunk is kept. It imports nothing (see gpu.js).

/**
 * @typedef {import("./gpu.js").Gpu} Gpu
 * @typedef {import("./gpu.js").PyBuffer} PyBuffer
 * @typedef {import("./pieces.js").Sink} Sink
 */

const READ_NBYTES = 1 << 20;

/** An error that Python turns into its own by these fields, read from the message.
 * @param {string} kind @param {string} what @param {number} offset */
function fault(kind, what, offset) {
  return new Error(JSON.stringify({ kind, what, offset }));
}

/** Reads a model folder's files from a server. */
export class Fetcher {
  #pieces;
  /** @type {Map<number, AbortController>} */
  #jobs = new Map();
  peakChunkNbytes = 0;

  /** @param {typeof import("./pieces.js")} pieces the module */
  constructor(pieces) {
    this.#pieces = pieces;
  }

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
    const pieces = this.#pieces.decodePieces(table);
    if (!pieces.length) return;
    const abort = new AbortController();
    this.#jobs.set(job, abort);
    const window = gpu && new this.#pieces.Window(gpu.queue, chunkNbytes, mostChunks);
    try {
      const start = pieces[0].fileOffset;
      const last = pieces[pieces.length - 1];
      const nbytes = last.fileOffset + last.nbytes - start;
      const { reader, skip } = await this.#open(url, start, nbytes, abort.signal);
      const feeder = new this.#pieces.Feeder(pieces, (target, offset, bytes) => {
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
