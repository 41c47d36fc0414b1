// A store of web/bridge/store.js's kind in node, which has none of a browser's; with a limit, as a browser's
// quota is one.

export class MemoryStore {
  kind = "memory";
  /** @type {Map<string, Uint8Array>} */
  files = new Map();
  /** @param {number} maxNbytes */
  constructor(maxNbytes = Infinity) {
    this.maxNbytes = maxNbytes;
  }

  get nbytes() {
    return [...this.files.values()].reduce((sum, { length }) => sum + length, 0);
  }

  async get(name, into) {
    const found = this.files.get(name);
    if (!found) return null;
    if (!into || found.length > into.length) return found.slice();
    into.set(found);
    return into.subarray(0, found.length);
  }

  async put(name, bytes) {
    if (this.nbytes + bytes.length > this.maxNbytes) throw new DOMException("full", "QuotaExceededError");
    this.files.set(name, bytes.slice());
  }

  async remove(name) {
    this.files.delete(name);
  }

  async names() {
    return [...this.files.keys()];
  }
}
