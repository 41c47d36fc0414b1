// A page as somebody else may write it: Python on its main thread, in a worker of its own, or in Bascule's.
import { BasculeClient, faultOf } from "../client.js";
import { embedIn, loadIn } from "./own-python.js";

/** @typedef {import("./own-python.js").Asked} Asked */

/** @type {Promise<any> | null} */
let onMain = null;

const ways = {
  /** @param {Asked} asked */
  async main(asked) {
    onMain ??= loadIn("../pyodide/", "../wheel/index.json");
    return embedIn(await onMain, asked);
  },
  /** @param {Asked} asked */
  worker(asked) {
    const worker = new Worker(new URL("./own-worker.js", import.meta.url), { type: "module" });
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(asked);
    });
  },
  /** @param {Asked} asked */
  async client({ model, tier, texts, bridge }) {
    const client = new BasculeClient(bridge ? { bridge } : {});
    try {
      const { tier: took } = await client.load(model, tier);
      const { data, columns } = await client.embed(texts);
      return { tier: took, data: Array.from(data), columns };
    } catch (error) {
      return { fault: faultOf(error) };
    } finally {
      await client.close().catch(() => {});
    }
  },
};

/** Whether this page may evaluate strings: the name of the error, or "". */
function refusal() {
  try {
    return eval("''");
  } catch (error) {
    return error.name;
  }
}

Object.assign(globalThis, { own: { ...ways, refusal: refusal() } });
