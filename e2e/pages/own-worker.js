// A module worker of somebody's own, as a strict Content-Security-Policy wants it.
import "../bridge/importer.js";
import { embedIn, loadIn } from "./own-python.js";

addEventListener("message", async ({ data: asked }) => {
  postMessage(await embedIn(await loadIn("../pyodide/", "../wheel/index.json"), asked));
});
