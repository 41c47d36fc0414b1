// Integer names for objects. It imports nothing (see gpu.js).

const INDEX_BITS = 20;

/**
 * A table of live objects. A name is an index in the low bits and a generation in the high ones, so
 * a stale name is an error even after its index is reused. The counterpart of handles.py.
 * @template T
 */
export class Handles {
  #kind;
  /** @type {(T | null)[]} */
  #objects = [null];
  #generations = [0];
  /** @type {number[]} */
  #free = [];

  /** @param {string} kind */
  constructor(kind) {
    this.#kind = kind;
  }

  get count() {
    return this.#objects.length - 1 - this.#free.length;
  }

  /** @param {T} item */
  add(item) {
    const index = this.#free.pop() ?? this.#objects.length;
    this.#objects[index] = item;
    this.#generations[index] ??= 0;
    return (this.#generations[index] << INDEX_BITS) | index;
  }

  /** @returns {Iterable<T>} */
  get live() {
    return this.#objects.filter((item) => item !== null);
  }

  /** @param {number} name */
  has(name) {
    return this.#find(name) !== null;
  }

  /** @param {number} name */
  get(name) {
    const item = this.#find(name);
    if (!item) throw new Error(`no live ${this.#kind} is named ${name}: it was freed or never made.`);
    return item;
  }

  /** @param {number} name */
  remove(name) {
    const item = this.get(name);
    const index = name & ((1 << INDEX_BITS) - 1);
    this.#objects[index] = null;
    this.#generations[index] = (this.#generations[index] + 1) & ((1 << (31 - INDEX_BITS)) - 1);
    this.#free.push(index);
    return item;
  }

  /** @param {number} name */
  #find(name) {
    const index = name & ((1 << INDEX_BITS) - 1);
    return this.#generations[index] === name >> INDEX_BITS ? this.#objects[index] : null;
  }

  /** Forget all names and return the live objects. @returns {T[]} */
  clear() {
    const live = [];
    for (const [index, item] of this.#objects.entries()) {
      if (item === null) continue;
      live.push(item);
      this.remove((this.#generations[index] << INDEX_BITS) | index);
    }
    return live;
  }
}
