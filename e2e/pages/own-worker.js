// A module worker of somebody's own, as a strict Content-Security-Policy wants it.
import "../bridge/importer.js";
import { embedIn, loadIn } from "./own-python.js";

const python = loadIn("../pyodide/", "../wheel/index.json");

addEventListener("message", async ({ data: asked }) => {
  postMessage(await embedIn(await python, asked));
});
