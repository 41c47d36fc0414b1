// The page of pictures: files are searched by text or similarity, and classified by labels, in the worker.

import { count, make, part, plainButton, show } from "./dom.js";
import { EngineCard } from "./engine.js";
import { decodePicture } from "./picture-files.js";
import { BasculeError } from "./protocol.js";

/** @typedef {import("./client.js").Scored} Scored */
/** @typedef {{ key: string, name: string, file: File, item: HTMLLIElement, status: HTMLElement, embedded: boolean }} Picture */

const MAX_PICTURES = 500;
const files = part("files", HTMLInputElement);
const drop = part("drop", HTMLElement);
const list = part("pictures", HTMLUListElement);
const stop = part("stop", HTMLButtonElement);
const query = part("query", HTMLInputElement);
const labels = part("labels", HTMLInputElement);
const search = part("search", HTMLButtonElement);
/** @type {Map<string, Picture>} */
const pictures = new Map();
let next = 1;
let stopped = false;

const engine = new EngineCard(["image-text-model", "image-model"], files, (state, fits) => {
  const usable = state === "ready" && fits;
  files.disabled = state === "error" || state === "busy" || (state === "ready" && !fits);
  stop.hidden = state !== "busy";
  const words = fits && engine.client.loaded?.kind === "image-text-model";
  part("words", HTMLElement).hidden = !words;
  for (const button of document.querySelectorAll("#pictures button")) {
    /** @type {HTMLButtonElement} */ (button).disabled = !usable;
    if (button.classList.contains("classify")) /** @type {HTMLElement} */ (button).hidden = !words;
  }
  search.disabled = !usable || !pictures.size;
  if (usable) queueMicrotask(embedWaiting);
});

/** @param {Iterable<File>} chosen */
function addFiles(chosen) {
  for (const file of chosen) {
    if (pictures.size >= MAX_PICTURES) {
      show("notes", `This page takes ${MAX_PICTURES} pictures.`);
      break;
    }
    add(file);
  }
  part("nothing", HTMLElement).hidden = pictures.size > 0;
  files.value = "";
  if (engine.state === "ready") embedWaiting();
}

/** @param {File} file */
function add(file) {
  const key = String((next += 1));
  const image = make("img", "");
  image.alt = file.name;
  image.src = URL.createObjectURL(file);
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  const status = make("p", "quiet", "waiting");
  const like = plainButton("More like this", () => rank({ like: key }));
  const classify = plainButton("Classify", () => classifyOne(key));
  classify.classList.add("classify");
  for (const button of [like, classify]) {
    button.setAttribute("aria-label", `${button.textContent}: ${file.name}`);
    button.disabled = true;
  }
  const item = make("li", "", image, make("p", "name", file.name), status, make("div", "row", like, classify));
  list.append(item);
  pictures.set(key, { key, name: file.name, file, item, status, embedded: false });
}

/** Embed new pictures, one after another; one that cannot be read shows an error, and the others follow. */
async function embedWaiting() {
  const waiting = [...pictures.values()].filter(({ embedded }) => !embedded);
  if (!waiting.length || engine.state !== "ready") return;
  stopped = false;
  let done = 0;
  await work("Looking…", async () => {
    for (const picture of waiting) {
      if (stopped) break;
      engine.showWork(done / waiting.length, `${done} of ${waiting.length}`);
      await embed(picture);
      done += 1;
    }
    const nRemaining = [...pictures.values()].filter(({ embedded }) => !embedded).length;
    show("count", `${count(pictures.size - nRemaining, "picture")} ready${nRemaining ? `, ${nRemaining} not yet` : ""}.`);
  });
}

/** @param {Picture} picture */
async function embed(picture) {
  try {
    const added = await engine.client.addPicture(picture.key, await decodePicture(picture.file));
    picture.embedded = true;
    picture.status.textContent = added.length ? shares(added) : "";
  } catch (error) {
    if (!(error instanceof BasculeError) || error.category !== "input") throw error;
    picture.status.textContent = `${error.what} ${error.hint}`;
    picture.item.classList.add("bad");
    picture.item.querySelector(".row")?.remove();
    pictures.delete(picture.key);
  }
}

/** @param {{ text: string } | { like: string }} query */
function rank(query) {
  return work("Searching…", async () => {
    const results = await engine.client.searchPictures(query);
    for (const [key, score] of results) {
      const picture = pictures.get(key);
      if (!picture) continue;
      picture.status.textContent = score.toFixed(3);
      list.append(picture.item);
    }
    for (const bad of list.querySelectorAll(".bad")) list.append(bad);
    const name = "like" in query ? `like ${pictures.get(query.like)?.name}` : `for “${query.text}”`;
    show("count", `${count(results.length, "picture")}, the nearest first, ${name}.`);
    list.scrollIntoView({ block: "nearest" });
  });
}

/** @param {string} key */
function classifyOne(key) {
  const named = [...new Set(labels.value.split(",").map((label) => label.trim()).filter(Boolean))];
  const picture = pictures.get(key);
  if (!named.length) {
    show("count", "Write the labels first, separated by commas.");
    labels.focus();
    return;
  }
  return work("Classifying…", async () => {
    const classes = await engine.client.classifyPicture(key, named);
    if (picture) picture.status.textContent = shares(classes);
    show("count", `${picture?.name}: ${classes[0][0]}.`);
  });
}

/** @param {Scored[]} classes */
function shares(classes) {
  return classes.slice(0, 3).map(([label, share]) => `${label} ${(100 * share).toFixed(1)}%`).join(", ");
}

/** Run a request to the model, and show its outcome. @param {string} text @param {() => Promise<void>} doing */
async function work(text, doing) {
  if (engine.state !== "ready") return;
  engine.setState("busy", text);
  try {
    await engine.idle.during(doing);
    engine.setState("ready", stopped ? "Cancelled." : "Ready.");
  } catch (error) {
    const cancelled = error instanceof BasculeError && error.category === "cancelled";
    if (cancelled) engine.setState("ready", "Cancelled.");
    else engine.showError(error, error instanceof BasculeError && error.category === "input");
  }
}

part("words", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (query.value.trim()) rank({ text: query.value.trim() });
});
stop.addEventListener("click", () => {
  stopped = true;
  engine.client.cancel().catch(() => {});
});
files.addEventListener("change", () => addFiles(files.files ?? []));
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer && !files.disabled) addFiles(event.dataTransfer.files);
});
