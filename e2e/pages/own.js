// A page as somebody else may write it: Python on its main thread, in a worker of its own, or in Bascule's.
import { BasculeClient, faultOf } from "../client.js";
import { embedIn, loadIn } from "./own-python.js";

/** @typedef {import("./own-python.js").Asked} Asked */

// Each way starts Python once, whatever it is asked for.
/** @type {Promise<any> | null} */
let onMain = null;
/** @type {Worker | null} */
let worker = null;
/** @type {BasculeClient | null} */
let client = null;

const ways = {
  /** @param {Asked} asked */
  async main(asked) {
    onMain ??= loadIn("../pyodide/", "../wheel/index.json");
    return embedIn(await onMain, asked);
  },
  /** @param {Asked} asked */
  worker(asked) {
    const own = (worker ??= new Worker(new URL("./own-worker.js", import.meta.url), { type: "module" }));
    return new Promise((resolve, reject) => {
      own.onmessage = ({ data }) => resolve(data);
      own.onerror = (event) => reject(new Error(event.message));
      own.postMessage(asked);
    });
  },
  /** @param {Asked} asked */
  async client({ model, tier, texts, bridge }) {
    client ??= new BasculeClient(bridge ? { bridge } : {});
    try {
      const { tier: took } = await client.load(model, tier);
      const { data, columns } = await client.embed(texts);
      return { tier: took, data: Array.from(data), columns };
    } catch (error) {
      return { fault: faultOf(error) };
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
