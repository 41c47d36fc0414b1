// navigator.locks for two readers in one node process: exclusive and shared locks, granted in the order of
// the requests (https://www.w3.org/TR/web-locks/).

export class Locks {
  /** @type {{ name: string, mode: string }[]} */
  #held = [];
  /** @type {{ name: string, mode: string, grant: () => void }[]} */
  #queue = [];

  request(name, { mode, signal }, work) {
    return new Promise((resolve, reject) => {
      const asked = { name, mode, grant: () => {} };
      const cancel = () => {
        this.#queue = this.#queue.filter((each) => each !== asked);
        reject(new DOMException("aborted", "AbortError"));
      };
      asked.grant = async () => {
        signal?.removeEventListener("abort", cancel);
        resolve(await work());
        this.#held.splice(this.#held.indexOf(asked), 1);
        this.#next();
      };
      signal?.addEventListener("abort", cancel);
      this.#queue.push(asked);
      this.#next();
    });
  }

  async query() {
    return { held: this.#held };
  }

  #next() {
    for (const asked of [...this.#queue]) {
      const { name, mode } = asked;
      const others = this.#held.filter((each) => each.name === name);
      const before = this.#queue.slice(0, this.#queue.indexOf(asked)).some((each) => each.name === name);
      if (before || others.some((each) => mode === "exclusive" || each.mode === "exclusive")) continue;
      this.#queue.splice(this.#queue.indexOf(asked), 1);
      this.#held.push(asked);
      asked.grant();
    }
  }
}
