// One file on a server, read by ranges over an unreliable network: connections drop and stall, servers
// answer wrongly. It imports nothing (see gpu.js). py/bascule/weights/remote.py does the same natively;
// tests hold both to one behaviour.

/**
 * What distinguishes one version of a file from another; empty or -1 where the server does not send it.
 * @typedef {{ nbytes: number, etag: string, modified: string }} Version
 * When to retry and when to give up; `silenceMs` is for another tab that holds the file's lock and stores
 * nothing.
 * @typedef {{ attempts: number, firstDelayMs: number, maxDelayMs: number, stallMs: number,
 *   maxWaitMs: number, silenceMs: number }} RetryPolicy
 */

const READ_NBYTES = 1 << 20;
const MIN_PROGRESS_NBYTES = 1 << 16;
const MIN_SPAN_NBYTES = 1 << 18;
const MAX_SPAN_NBYTES = 1 << 24;
const PROBE_MS = 5000;
const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(?:\d{1,15}|\*)$/;
const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A failed read. The message is JSON of its fields, from which Python makes its own error. */
export class Fault extends Error {
  retryAfterMs = -1;
  /** Whether fetch() itself failed, as it does where CORS forbids the request and where there is no network. */
  fetchFailed = false;

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
  /** Whether a part came without its Content-Range, which servers may hide from other origins. */
  unnamed = false;
  #sameOrigin;
  #responded = false;

  /** @param {string} url @param {RetryPolicy} retry */
  constructor(url, retry) {
    this.url = url;
    this.retry = retry;
    this.#sameOrigin = new URL(url).origin === globalThis.location?.origin;
  }

  /** Ask the server for the file's version without its bytes. @param {AbortSignal} signal
   * @param {number} [maxMs] a single attempt with this time limit, without retries */
  async check(signal, maxMs) {
    const brief = { ...this.retry, attempts: 1, stallMs: maxMs ?? 0 };
    await this.#retried(0, -1, maxMs ? brief : this.retry, signal, async (retry) => {
      let { response, stop } = await this.#ask("HEAD", {}, retry, signal);
      stop();
      if (!response.ok && response.status !== 404 && response.status !== 410 && !RETRIED.has(response.status)) {
        // Some servers reject HEAD; a request for one byte gives the same headers.
        ({ response, stop } = await this.#ask("GET", { Range: "bytes=0-0" }, retry, signal));
        await response.body?.cancel();
        stop();
      }
      this.#checkStatus(response, 0);
      this.version = versionOf(response);
      return true;
    });
    return /** @type {Version} */ (this.version);
  }

  /** Yield bytes start to end as they arrive; each part overwrites the one before. A failed request is
   * retried from where it stopped, with a shorter range if nothing arrived: some browsers drop what
   * they have received when a connection breaks.
   * @param {number} start @param {number} end @param {AbortSignal} signal */
  async *read(start, end, signal) {
    let at = start;
    let failures = 0;
    let since = 0;
    let span = Infinity;
    while (at < end) {
      const stop = Math.min(end, at + span);
      try {
        for await (const part of this.#attempt(at, stop, this.retry, signal)) {
          at += part.length;
          since += part.length;
          this.received += part.length;
          yield part;
        }
        if (at < stop) throw new Fault("network", `the server sent ${stop - at} bytes too little`, at);
        span *= 4;
      } catch (error) {
        if (!since) span = Math.max(MIN_SPAN_NBYTES, Math.min(span, MAX_SPAN_NBYTES) / 4);
        failures = since >= MIN_PROGRESS_NBYTES ? 1 : failures + 1;
        since = 0;
        await this.#wait(error, failures, at, end, this.retry, signal);
      }
    }
  }

  /** Read a complete file whose size may be unknown, at most `maxNbytes`. @param {number} maxNbytes
   * @param {AbortSignal} signal */
  async readAll(maxNbytes, signal) {
    return this.#retried(0, -1, this.retry, signal, async (retry) => {
      const { response, stop } = await this.#ask("GET", {}, retry, signal);
      this.#checkStatus(response, 0);
      this.version = { ...versionOf(response), nbytes: -1 };
      const parts = [];
      let nbytes = 0;
      for await (const part of body(response, stop, Infinity, 0)) {
        parts.push(part.slice());
        nbytes += part.length;
        if (nbytes > maxNbytes) throw new Fault("large", "it is too large for its kind", 0);
      }
      // A compressed body's length is not the file's; without compression they must agree.
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

  /** @param {number} at @param {number} end @param {RetryPolicy} retry @param {AbortSignal} signal */
  async *#attempt(at, end, retry, signal) {
    const known = this.version;
    /** @type {Record<string, string>} */
    const headers = { Range: `bytes=${at}-${end - 1}` };
    // Across origins this header would cost a preflight that many servers reject; there the response's
    // own headers are compared.
    const validator = known?.etag && !known.etag.startsWith("W/") ? known.etag : known?.modified;
    if (this.#sameOrigin && validator) headers["If-Range"] = validator;
    const { response, stop } = await this.#ask("GET", headers, retry, signal);
    try {
      this.#checkStatus(response, at);
      this.#checkVersion(response, at);
      const ignoredRange = response.status === 200;
      yield* body(response, stop, end - at, ignoredRange ? at : 0);
    } finally {
      stop();
    }
  }

  /** @param {Response} response @param {number} at */
  #checkStatus(response, at) {
    const { status } = response;
    // 204: a server that avoids the console's error message for a 404.
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
  #checkVersion(response, at) {
    const encoding = response.headers.get("content-encoding") ?? "identity";
    if (encoding !== "identity") {
      throw new Fault("source", "the server compressed a file that was requested uncompressed", at);
    }
    if (response.status === 206) this.#checkRange(response.headers.get("content-range") ?? "", at);
    const now = versionOf(response);
    const before = (this.version ??= now);
    if (!agree(now, before)) throw new Fault("changed", "the file has changed on the server", at);
    if (before.nbytes < 0) before.nbytes = now.nbytes;
  }

  /** RFC 9110, 15.3.7.1: a part must name its range. @param {string} range @param {number} at */
  #checkRange(range, at) {
    const [, first, last] = CONTENT_RANGE.exec(range) ?? [];
    if (first !== undefined) {
      if (Number(first) === at && Number(last) >= at) return;
      throw new Fault("network", `the server sent another range (${range})`, at);
    }
    if (range || this.#sameOrigin) {
      const sent = range ? `an invalid one: ${range.slice(0, 80)}` : "none";
      throw new Fault("network", `the server sent a part without its Content-Range (${sent})`, at);
    }
    this.unnamed = true;
  }

  /** Send a request that is aborted when nothing arrives for `stallMs`; `stop` ends the watch and the body.
   * @param {string} method @param {Record<string, string>} headers @param {RetryPolicy} retry
   * @param {AbortSignal} signal */
  async #ask(method, headers, retry, signal) {
    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal.addEventListener("abort", cancel);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(cancel, retry.stallMs);
    };
    const stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      abort.abort();
    };
    watch();
    try {
      // The HTTP cache would store the file a second time.
      const response = await fetch(this.url, { method, headers, signal: abort.signal, cache: "no-store" });
      this.#responded = true;
      return { response, stop: Object.assign(stop, { watch, stallMs: retry.stallMs, signal }) };
    } catch (error) {
      stop();
      const fault = faultOf(error, signal, retry.stallMs, 0);
      fault.fetchFailed = fault.kind === "network" && !this.#sameOrigin && !this.#responded;
      if (fault.fetchFailed && /** @type {Error} */ (error).name === "TypeError" && (await this.#isReachable(signal))) {
        throw new Fault("cors", `the page may not read its response: ${corsOf()}`, 0);
      }
      throw fault;
    }
  }

  /** Whether the server answers a no-cors request, whose response no page may read: then CORS was why
   * the other one failed. @param {AbortSignal} signal */
  async #isReachable(signal) {
    const abort = new AbortController();
    const cancel = () => abort.abort();
    signal.addEventListener("abort", cancel);
    const timer = setTimeout(cancel, Math.min(PROBE_MS, this.retry.stallMs));
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

  /** @template T @param {number} at @param {number} end @param {RetryPolicy} retry
   * @param {AbortSignal} signal @param {(retry: RetryPolicy) => Promise<T>} work */
  async #retried(at, end, retry, signal, work) {
    for (let failures = 1; ; failures++) {
      try {
        return await work(retry);
      } catch (error) {
        await this.#wait(error, failures, at, end, retry, signal);
      }
    }
  }

  /** Sleep before a retry, with exponential backoff and full jitter; throw if there is none.
   * @param {unknown} error @param {number} failures @param {number} at @param {number} end
   * @param {RetryPolicy} retry @param {AbortSignal} signal */
  async #wait(error, failures, at, end, retry, signal) {
    if (!(error instanceof Fault) || error.kind !== "network") throw error;
    const { attempts, firstDelayMs, maxDelayMs, maxWaitMs } = retry;
    const range = end < 0 ? "" : ` (bytes ${at} to ${end - 1})`;
    if (failures >= attempts) {
      const tries = attempts > 1 ? `, tried ${attempts} times` : "";
      const cors = error.fetchFailed ? `; if it runs, ${corsOf()}` : "";
      throw new Fault("source", `${error.what}${range}${tries}${cors}`, at);
    }
    if (error.retryAfterMs > maxWaitMs) {
      const seconds = Math.round(error.retryAfterMs / 1000);
      throw new Fault("source", `${error.what} and asks to wait ${seconds} s${range}`, at);
    }
    this.retries += 1;
    const backoff = Math.random() * Math.min(maxDelayMs, firstDelayMs * 2 ** (failures - 1));
    await sleep(Math.max(backoff, error.retryAfterMs), signal, at);
  }
}

/** Whether two versions are equal in every field that both have; ETags by weak comparison
 * (RFC 9110, 8.8.3.2).
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
function sleep(ms, signal, at) {
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
function faultOf(error, signal, stallMs, at) {
  if (error instanceof Fault) return error;
  const { name, message } = /** @type {Error} */ (error);
  if (signal.aborted) return new Fault("cancelled", "the load was cancelled", at);
  if (name === "AbortError") {
    return new Fault("network", `nothing came for ${stallMs / 1000} s`, at);
  }
  return new Fault("network", `the connection failed (${message})`, at);
}

/**
 * Yield the parts of a response's body: without its first `skip` bytes, at most `maxNbytes`. One buffer
 * is reused where the browser supports it, so that the parts are not garbage to collect.
 * @param {Response} response @param {(() => void) & { watch: () => void, stallMs: number,
 *   signal: AbortSignal }} stop @param {number} maxNbytes @param {number} skip
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>>}
 */
async function* body(response, stop, maxNbytes, skip) {
  if (!response.body) throw new Fault("source", "the server sent no body", 0);
  const read = reader(response.body);
  let nYielded = 0;
  try {
    while (nYielded < maxNbytes) {
      stop.watch();
      const value = await read();
      if (!value) return;
      const from = Math.min(skip, value.length);
      skip -= from;
      const part = value.subarray(from, Math.min(value.length, from + maxNbytes - nYielded));
      nYielded += part.length;
      if (part.length) yield part;
    }
  } catch (error) {
    throw faultOf(error, stop.signal, stop.stallMs, nYielded);
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
    const plain = stream.getReader(); // older browsers: the body is no byte stream
    return async () => (await plain.read()).value;
  }
  let view = new Uint8Array(READ_NBYTES);
  return async () => {
    const { value, done } = await byob.read(view);
    if (value) view = new Uint8Array(value.buffer, 0, value.buffer.byteLength);
    return done ? undefined : value;
  };
}
