// One file on a server, read by ranges over a network that drops, stalls and lies. It imports nothing
// (see gpu.js). py/bascule/weights/remote.py does the same natively; tests hold both to one behaviour.

/**
 * What distinguishes one version of a file from another; empty or -1 where the server does not say.
 * @typedef {{ nbytes: number, etag: string, modified: string }} Version
 * How long to go on: `silenceMs` is for another tab that holds the file's lock and brings nothing.
 * @typedef {{ attempts: number, firstDelayMs: number, mostDelayMs: number, stallMs: number,
 *   mostWaitMs: number, silenceMs: number }} Patience
 */

const READ_NBYTES = 1 << 20;
const LEAST_PROGRESS_NBYTES = 1 << 16;
const LEAST_SPAN_NBYTES = 1 << 18;
const MOST_SPAN_NBYTES = 1 << 24;
const PROBE_MS = 5000;
const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(?:\d{1,15}|\*)$/;
const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);

/** What went wrong; Python makes its own error of these fields, read from the message. */
export class Fault extends Error {
  retryAfterMs = -1;
  /** Whether fetch() itself refused, as it does where CORS does and where there is no network. */
  refused = false;

  /** @param {string} kind missing, unlisted, changed, cancelled, large, corrupt, cors, source, or network,
   * which is retried
   * @param {string} what @param {number} offset */
  constructor(kind, what, offset) {
    super(JSON.stringify({ kind, what, offset }));
    this.kind = kind;
    this.what = what;
    this.offset = offset;
  }
}

/** A file at a URL. */
export class Remote {
  /** Bytes of bodies read so far. */
  received = 0;
  retries = 0;
  /** @type {Version | null} */
  version = null;
  /** Whether a part came without the name of its range, which servers may hide from other origins. */
  unnamed = false;
  #sameOrigin;
  #heard = false;

  /** @param {string} url @param {Patience} patience */
  constructor(url, patience) {
    this.url = url;
    this.patience = patience;
    this.#sameOrigin = new URL(url).origin === globalThis.location?.origin;
  }

  /** Ask the server for the file's version without its bytes. @param {AbortSignal} signal
   * @param {number} [mostMs] give up after so long instead of trying again */
  async check(signal, mostMs) {
    const brief = { ...this.patience, attempts: 1, stallMs: mostMs ?? 0 };
    await this.#retried(0, -1, mostMs ? brief : this.patience, signal, async (patience) => {
      let { response, stop } = await this.#ask("HEAD", {}, patience, signal);
      stop();
      if (!response.ok && response.status !== 404 && response.status !== 410 && !RETRIED.has(response.status)) {
        // Some servers refuse HEAD; a request for one byte says as much.
        ({ response, stop } = await this.#ask("GET", { Range: "bytes=0-0" }, patience, signal));
        await response.body?.cancel();
        stop();
      }
      this.#refuse(response, 0);
      this.version = versionOf(response);
      return true;
    });
    return /** @type {Version} */ (this.version);
  }

  /** Bytes start to end, as they come; each part is overwritten by the next. What fails is tried again
   * from where it stopped, in shorter ranges where nothing came: some browsers drop what they have when
   * a connection breaks. @param {number} start @param {number} end @param {AbortSignal} signal */
  async *read(start, end, signal) {
    let at = start;
    let failures = 0;
    let since = 0;
    let span = Infinity;
    while (at < end) {
      const stop = Math.min(end, at + span);
      try {
        for await (const part of this.#attempt(at, stop, this.patience, signal)) {
          at += part.length;
          since += part.length;
          this.received += part.length;
          yield part;
        }
        if (at < stop) throw new Fault("network", `the server sent ${stop - at} bytes too little`, at);
        span *= 4;
      } catch (error) {
        if (!since) span = Math.max(LEAST_SPAN_NBYTES, Math.min(span, MOST_SPAN_NBYTES) / 4);
        failures = since >= LEAST_PROGRESS_NBYTES ? 1 : failures + 1;
        since = 0;
        await this.#wait(error, failures, at, end, this.patience, signal);
      }
    }
  }

  /** A whole file whose size may be unknown, at most `most` bytes. @param {number} most
   * @param {AbortSignal} signal */
  async whole(most, signal) {
    return this.#retried(0, -1, this.patience, signal, async (patience) => {
      const { response, stop } = await this.#ask("GET", {}, patience, signal);
      this.#refuse(response, 0);
      this.version = { ...versionOf(response), nbytes: -1 };
      const parts = [];
      let nbytes = 0;
      for await (const part of body(response, stop, Infinity, 0)) {
        parts.push(part.slice());
        nbytes += part.length;
        if (nbytes > most) throw new Fault("large", "it is too large for what it should hold", 0);
      }
      // A compressed body's length is not the file's; without compression it has to agree.
      const promised = response.headers.get("content-length");
      const encoded = response.headers.get("content-encoding");
      if (promised && !encoded && Number(promised) !== nbytes) {
        throw new Fault("network", `the server sent ${nbytes} of ${promised} bytes`, nbytes);
      }
      this.received += nbytes;
      this.version.nbytes = nbytes;
      return new Uint8Array(await new Blob(parts).arrayBuffer());
    });
  }

  /** @param {number} at @param {number} end @param {Patience} patience @param {AbortSignal} signal */
  async *#attempt(at, end, patience, signal) {
    const known = this.version;
    /** @type {Record<string, string>} */
    const headers = { Range: `bytes=${at}-${end - 1}` };
    // Across origins this header would cost a preflight that many servers refuse; there the answer's
    // own headers are compared.
    const sure = known?.etag && !known.etag.startsWith("W/") ? known.etag : known?.modified;
    if (this.#sameOrigin && sure) headers["If-Range"] = sure;
    const { response, stop } = await this.#ask("GET", headers, patience, signal);
    try {
      this.#refuse(response, at);
      this.#sameVersion(response, at);
      const whole = response.status === 200;
      yield* body(response, stop, end - at, whole ? at : 0);
    } finally {
      stop();
    }
  }

  /** @param {Response} response @param {number} at */
  #refuse(response, at) {
    const { status } = response;
    // 204: how a server says so without a red line in the console of each visit.
    if (status === 404 || status === 410 || status === 204) {
      throw new Fault("missing", "there is no such file", at);
    }
    if (status === 416) throw new Fault("changed", "the file has become shorter", at);
    if (RETRIED.has(status)) {
      const fault = new Fault("network", `the server answered ${status}`, at);
      fault.retryAfterMs = retryAfter(response.headers.get("retry-after"));
      throw fault;
    }
    if (status !== 200 && status !== 206) throw new Fault("source", `the server answered ${status}`, at);
  }

  /** @param {Response} response @param {number} at */
  #sameVersion(response, at) {
    const encoding = response.headers.get("content-encoding") ?? "identity";
    if (encoding !== "identity") {
      throw new Fault("source", "the server compressed a file that was asked for as it is", at);
    }
    if (response.status === 206) this.#sameRange(response.headers.get("content-range") ?? "", at);
    const now = versionOf(response);
    const before = (this.version ??= now);
    if (!agree(now, before)) throw new Fault("changed", "the file has changed on the server", at);
    if (before.nbytes < 0) before.nbytes = now.nbytes;
  }

  /** RFC 9110, 15.3.7.1: a part must name its range. @param {string} range @param {number} at */
  #sameRange(range, at) {
    const [, first, last] = CONTENT_RANGE.exec(range) ?? [];
    if (first !== undefined) {
      if (Number(first) === at && Number(last) >= at) return;
      throw new Fault("network", `the server sent another range (${range})`, at);
    }
    if (range || this.#sameOrigin) {
      const missing = range ? `an unsound one: ${range.slice(0, 80)}` : "none";
      throw new Fault("network", `the server sent a part without its Content-Range (${missing})`, at);
    }
    this.unnamed = true;
  }

  /** A request that ends when nothing comes for too long; `stop` ends the watch, and the body.
   * @param {string} method @param {Record<string, string>} headers @param {Patience} patience
   * @param {AbortSignal} signal */
  async #ask(method, headers, patience, signal) {
    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal.addEventListener("abort", cancel);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(cancel, patience.stallMs);
    };
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      abort.abort();
    };
    watch();
    try {
      // On its way through the HTTP cache a whole file would be held a second time.
      const response = await fetch(this.url, { method, headers, signal: abort.signal, cache: "no-store" });
      this.#heard = true;
      return { response, stop: Object.assign(stop, { watch, stallMs: patience.stallMs, signal }) };
    } catch (error) {
      stop();
      const trouble = troubleOf(error, signal, patience.stallMs, 0);
      trouble.refused = trouble.kind === "network" && !this.#sameOrigin && !this.#heard;
      if (trouble.refused && /** @type {Error} */ (error).name === "TypeError" && (await this.#answers(signal))) {
        throw new Fault("cors", `the page may not read its answer: ${corsOf()}`, 0);
      }
      throw trouble;
    }
  }

  /** Whether the server answers to a request whose answer no page may read: then it was CORS that
   * refused the other. @param {AbortSignal} signal */
  async #answers(signal) {
    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal.addEventListener("abort", cancel);
    const timer = setTimeout(cancel, Math.min(PROBE_MS, this.patience.stallMs));
    try {
      await fetch(this.url, { method: "HEAD", mode: "no-cors", signal: abort.signal, cache: "no-store" });
      return true;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
    }
  }

  /** @template T @param {number} at @param {number} end @param {Patience} patience
   * @param {AbortSignal} signal @param {(patience: Patience) => Promise<T>} work */
  async #retried(at, end, patience, signal, work) {
    for (let failures = 1; ; failures++) {
      try {
        return await work(patience);
      } catch (error) {
        await this.#wait(error, failures, at, end, patience, signal);
      }
    }
  }

  /** Sleep before another try, or throw: exponential backoff with full jitter.
   * @param {unknown} error @param {number} failures @param {number} at @param {number} end
   * @param {Patience} patience @param {AbortSignal} signal */
  async #wait(error, failures, at, end, patience, signal) {
    if (!(error instanceof Fault) || error.kind !== "network") throw error;
    const { attempts, firstDelayMs, mostDelayMs, mostWaitMs } = patience;
    const range = end < 0 ? "" : ` (bytes ${at} to ${end - 1})`;
    if (failures >= attempts) {
      const tries = attempts > 1 ? `, tried ${attempts} times` : "";
      const cors = error.refused ? `; if it runs, ${corsOf()}` : "";
      throw new Fault("source", `${error.what}${range}${tries}${cors}`, at);
    }
    if (error.retryAfterMs > mostWaitMs) {
      const seconds = Math.round(error.retryAfterMs / 1000);
      throw new Fault("source", `${error.what} and asks to wait ${seconds} s${range}`, at);
    }
    this.retries += 1;
    const backoff = Math.random() * Math.min(mostDelayMs, firstDelayMs * 2 ** (failures - 1));
    await pause(Math.max(backoff, error.retryAfterMs), signal, at);
  }
}

/** Equal in all that both state; ETags by weak comparison (RFC 9110, 8.8.3.2).
 * @param {Version} a @param {Version} b */
export function agree(a, b) {
  const pairs = [
    [a.nbytes, b.nbytes],
    [a.etag.replace(/^W\//, ""), b.etag.replace(/^W\//, "")],
    [a.modified, b.modified],
  ];
  return pairs.every(([x, y]) => x === "" || x === -1 || y === "" || y === -1 || x === y);
}

/** @param {Response} response @returns {Version} */
function versionOf({ status, headers }) {
  const total = status === 206 ? headers.get("content-range")?.split("/")[1] : headers.get("content-length");
  const encoded = headers.has("content-encoding") && headers.get("content-encoding") !== "identity";
  return {
    nbytes: total && /^\d{1,15}$/.test(total) && !encoded ? Number(total) : -1,
    etag: headers.get("etag") ?? "",
    modified: headers.get("last-modified") ?? "",
  };
}

/** Milliseconds of a Retry-After (RFC 9110, 10.2.3): seconds or a date; -1 for none.
 * @param {string | null} header */
function retryAfter(header) {
  if (!header) return -1;
  if (/^\d+$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? -1 : Math.max(0, date - Date.now());
}

/** @param {number} ms @param {AbortSignal} signal @param {number} at */
function pause(ms, signal, at) {
  return new Promise((resolve, reject) => {
    const cancel = () => {
      clearTimeout(timer);
      reject(new Fault("cancelled", "the load was cancelled", at));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", cancel);
      resolve(undefined);
    }, ms);
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  });
}

function corsOf() {
  return `the server may not send Access-Control-Allow-Origin for ${globalThis.location?.origin}`;
}

/** @param {unknown} error @param {AbortSignal} signal @param {number} stallMs @param {number} at */
function troubleOf(error, signal, stallMs, at) {
  if (error instanceof Fault) return error;
  const { name, message } = /** @type {Error} */ (error);
  if (signal.aborted) return new Fault("cancelled", "the load was cancelled", at);
  if (name === "AbortError") {
    return new Fault("network", `nothing came for ${stallMs / 1000} s`, at);
  }
  return new Fault("network", `the connection failed (${message})`, at);
}

/**
 * The parts of an answer's body: `skip` bytes left out, `most` at most. One buffer is filled again and
 * again where the browser can: each part would be garbage otherwise.
 * @param {Response} response @param {(() => void) & { watch: () => void, stallMs: number,
 *   signal: AbortSignal }} stop @param {number} most @param {number} skip
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>>}
 */
async function* body(response, stop, most, skip) {
  if (!response.body) throw new Fault("source", "the server sent no body", 0);
  const read = reader(response.body);
  let given = 0;
  try {
    while (given < most) {
      stop.watch();
      const value = await read();
      if (!value) return;
      const from = Math.min(skip, value.length);
      skip -= from;
      const part = value.subarray(from, Math.min(value.length, from + most - given));
      given += part.length;
      if (part.length) yield part;
    }
  } catch (error) {
    throw troubleOf(error, stop.signal, stop.stallMs, given);
  } finally {
    stop();
  }
}

/** @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @returns {() => Promise<Uint8Array<ArrayBuffer> | undefined>} */
function reader(stream) {
  let byob;
  try {
    byob = stream.getReader({ mode: "byob" });
  } catch {
    const plain = stream.getReader(); // a body that is no byte stream, in older browsers
    return async () => (await plain.read()).value;
  }
  let view = new Uint8Array(READ_NBYTES);
  return async () => {
    const { value, done } = await byob.read(view);
    if (value) view = new Uint8Array(value.buffer, 0, value.buffer.byteLength);
    return done ? undefined : value;
  };
}
