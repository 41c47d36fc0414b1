// Makes a memory snapshot of Python in this browser, from which the next visit starts: once, while nothing
// is running, in separate workers (snapshot-worker.js), and in one tab at a time.

/** @typedef {import("./client-options.js").WorkerConfig} WorkerConfig */

const LOCK = "bascule:snapshot";
const QUIET_MS = 5000;
const STEP_MS = 300_000; // a step that hangs, on the slowest of machines
/** A step needs up to about 250 MB for some seconds. */
const MIN_MEMORY_GIB = 4;
/** Attempts are counted before they begin: one may end with its tab. */
const ATTEMPTS = "bascule-snapshot-attempts";
const MAX_ATTEMPTS = 3;
const FORGOTTEN_MS = 7 * 86_400_000;

export class SnapshotMaker {
  #startWorker;
  #place;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Promise<string> | null} */
  #making = null;
  /** Aborts the current step. @type {(reason: string) => void} */
  #end = () => {};
  /** Whether a snapshot is being made. */
  busy = false;
  /** The times of making one. @type {Record<string, number>} */
  stats = {};

  /** @param {() => Worker} startWorker @param {WorkerConfig} config */
  constructor(startWorker, { pyodide, wheel }) {
    this.#startWorker = startWorker;
    this.#place = { pyodide, wheel };
  }

  /** Start after a while, if the page is idle then; each call restarts the wait. The console says once why
   * none was made. @param {() => boolean} quiet @param {() => Promise<boolean>} numpy see `make` */
  schedule(quiet, numpy) {
    clearTimeout(this.#timer);
    if (this.#making) return;
    this.#timer = setTimeout(async () => {
      if (!quiet()) return this.schedule(quiet, numpy);
      const outcome = hasAttempts() ? await this.make(numpy) : "it was tried several times";
      if (outcome !== "made") console.debug(`Bascule makes no snapshot of Python: ${outcome}.`);
    }, QUIET_MS);
  }

  /** Make it now, if this was not tried before in this page. Never rejects.
   * @param {() => Promise<boolean>} numpy whether this page has loaded numpy, whose code is compiled then, too
   * @returns {Promise<string>} "made", or why not */
  make(numpy) {
    clearTimeout(this.#timer);
    this.#making ??= this.#makeAlone(numpy)
      .catch((error) => error.message)
      .finally(() => (this.busy = false));
    return this.#making;
  }

  /** Stop: the page is closed, or its Python has ended. */
  end() {
    clearTimeout(this.#timer);
    this.#end("the page was left");
  }

  /** @param {() => Promise<boolean>} numpy @returns {Promise<string>} */
  async #makeAlone(numpy) {
    const began = performance.now();
    const { deviceMemory = Infinity } = /** @type {{ deviceMemory?: number }} */ (navigator);
    if (deviceMemory < MIN_MEMORY_GIB) return `this machine has ${deviceMemory} GiB of memory`;
    if (!navigator.locks) return "this browser has no locks";
    return navigator.locks.request(LOCK, { ifAvailable: true }, async (lock) => {
      if (!lock) return "another tab makes it";
      countAttempt();
      this.busy = true;
      const nbytes = await this.#steps(await numpy());
      this.stats = { snapshot_nbytes: nbytes, snapshot_make_ms: performance.now() - began };
      return "made";
    });
  }

  /** @param {boolean} numpy @returns {Promise<number>} its bytes */
  async #steps(numpy) {
    const { key, collected } = await this.#run({ step: "collect", numpy });
    const { bytes } = await this.#run({ step: "make", key, collected });
    const { nbytes } = await this.#run({ step: "keep", key, bytes }, [bytes.buffer]);
    return nbytes;
  }

  /** @param {object} request @param {Transferable[]} [transfer] @returns {Promise<any>} */
  async #run(request, transfer = []) {
    const worker = this.#startWorker();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        this.#end = (reason) => reject(new Error(reason));
        timer = setTimeout(() => this.#end("it took too long"), STEP_MS);
        worker.onmessage = ({ data }) => (data.error ? this.#end(data.error) : resolve(data));
        worker.onerror = (event) => {
          event.preventDefault();
          this.#end(event.message || "its worker did not start");
        };
        worker.postMessage({ ...this.#place, ...request }, transfer);
      });
    } finally {
      clearTimeout(timer);
      worker.terminate();
      this.#end = () => {};
    }
  }
}

/** @returns {{ count: number, since: number }} */
function attempts() {
  try {
    const { count, since } = JSON.parse(localStorage.getItem(ATTEMPTS) ?? "{}");
    if (Number.isSafeInteger(count) && Date.now() - since < FORGOTTEN_MS) return { count, since };
  } catch {
    // storage is blocked, or was damaged
  }
  return { count: 0, since: Date.now() };
}

function hasAttempts() {
  return attempts().count < MAX_ATTEMPTS;
}

function countAttempt() {
  const { count, since } = attempts();
  try {
    localStorage.setItem(ATTEMPTS, JSON.stringify({ count: count + 1, since }));
  } catch {
    // storage is blocked
  }
}
