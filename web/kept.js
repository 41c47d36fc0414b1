// The panel of what is kept in this browser: listed, verified, removed; and asking the browser, once, to
// keep it when space runs short.

/** @typedef {import("./client.js").BasculeClient} BasculeClient */

const ASKED = "bascule-asked-to-persist";

/** Browsers may evict what is not persistent. Some ask the person: so once, and never again.
 * @returns {Promise<boolean>} whether it is persistent now */
export async function askToPersist() {
  const { storage } = navigator;
  if (!storage?.persist) return false;
  try {
    if (await storage.persisted()) return true;
    if (localStorage.getItem(ASKED)) return false;
    localStorage.setItem(ASKED, "yes");
    return await storage.persist();
  } catch {
    return false; // storage is blocked
  }
}

/** @param {number} nbytes */
function megabytes(nbytes) {
  return `${(nbytes / 1e6).toFixed(1)} MB`;
}

/** Draws what is kept, and does what its buttons say. */
export class KeptPanel {
  #client;
  #rows;
  #told;

  /** @param {HTMLElement} panel @param {BasculeClient} client */
  constructor(panel, client) {
    this.#client = client;
    this.#rows = /** @type {HTMLElement} */ (panel.querySelector("tbody"));
    this.#told = /** @type {HTMLElement} */ (panel.querySelector("[role=status]"));
    panel.addEventListener("toggle", () => this.#show().catch((error) => this.#tell(error)));
    const on = (/** @type {string} */ name, /** @type {() => Promise<string>} */ work) => {
      panel.querySelector(`[name=${name}]`)?.addEventListener("click", () => {
        work().then((text) => this.#show(text)).catch((error) => this.#tell(error));
      });
    };
    on("verify", () => this.#verify());
    on("remove", async () => `${await this.#client.cache("rm", null)} removed.`);
  }

  async #verify() {
    this.#told.textContent = "Verifying…";
    const damaged = Object.keys(await this.#client.cache("verify", null)).length;
    return damaged ? `${damaged} damaged, fetched again when needed.` : "All that is kept is sound.";
  }

  /** @param {string} [text] */
  async #show(text) {
    const kept = await this.#client.cache("ls", null);
    this.#rows.replaceChildren(...kept.map((/** @type {any} */ each) => this.#row(each)));
    const all = kept.reduce((/** @type {number} */ n, /** @type {any} */ each) => n + each.stored_nbytes, 0);
    this.#told.textContent = text ?? (kept.length ? `${megabytes(all)} in all.` : "Nothing is kept yet.");
  }

  /** @param {{ location: string, stored_nbytes: number, nbytes: number, in_use: boolean }} each */
  #row({ location, stored_nbytes, nbytes, in_use }) {
    const row = document.createElement("tr");
    const whole = stored_nbytes === nbytes ? "" : ` of ${megabytes(nbytes)}`;
    for (const text of [location, megabytes(stored_nbytes) + whole, in_use ? "in use" : ""]) {
      row.insertCell().textContent = text;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove ${location}`);
    button.addEventListener("click", () => {
      const gone = this.#client.cache("rm", [location]);
      gone.then(() => this.#show()).catch((error) => this.#tell(error));
    });
    row.insertCell().append(button);
    return row;
  }

  /** @param {unknown} error */
  #tell(error) {
    this.#told.textContent = error instanceof Error ? error.message : String(error);
  }
}
