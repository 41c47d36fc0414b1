// The page of pictures: files in, found by words or by likeness, classified by labels. The worker does the work.

import { count, make, part, plainButton, show } from "./dom.js";
import { EngineCard } from "./engine.js";
import { decodePicture } from "./picture-files.js";
import { BasculeError } from "./protocol.js";

/** @typedef {import("./client.js").Scored} Scored */
/** @typedef {{ key: string, name: string, file: File, item: HTMLLIElement, said: HTMLElement, embedded: boolean }} Picture */

const MOST_PICTURES = 500;
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

/** @param {Iterable<File>} given */
function take(given) {
  for (const file of given) {
    if (pictures.size >= MOST_PICTURES) {
      show("notes", `This page takes ${MOST_PICTURES} pictures.`);
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
  const said = make("p", "quiet", "waiting");
  const like = plainButton("More like this", () => rank({ like: key }));
  const classify = plainButton("Classify", () => classifyOne(key));
  classify.classList.add("classify");
  for (const button of [like, classify]) {
    button.setAttribute("aria-label", `${button.textContent}: ${file.name}`);
    button.disabled = true;
  }
  const item = make("li", "", image, make("p", "name", file.name), said, make("div", "row", like, classify));
  list.append(item);
  pictures.set(key, { key, name: file.name, file, item, said, embedded: false });
}

/** Embed what waits, one picture after another; what cannot be read says so and the rest goes on. */
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
    const left = [...pictures.values()].filter(({ embedded }) => !embedded).length;
    show("count", `${count(pictures.size - left, "picture")} ready${left ? `, ${left} not yet` : ""}.`);
  });
}

/** @param {Picture} picture */
async function embed(picture) {
  try {
    const added = await engine.client.addPicture(picture.key, await decodePicture(picture.file));
    picture.embedded = true;
    picture.said.textContent = added.length ? shares(added) : "";
  } catch (error) {
    if (!(error instanceof BasculeError) || error.category !== "input") throw error;
    picture.said.textContent = `${error.what} ${error.hint}`;
    picture.item.classList.add("bad");
    picture.item.querySelector(".row")?.remove();
    pictures.delete(picture.key);
  }
}

/** @param {{ text: string } | { like: string }} asked */
function rank(asked) {
  return work("Searching…", async () => {
    const results = await engine.client.searchPictures(asked);
    for (const [key, score] of results) {
      const picture = pictures.get(key);
      if (!picture) continue;
      picture.said.textContent = score.toFixed(3);
      list.append(picture.item);
    }
    for (const bad of list.querySelectorAll(".bad")) list.append(bad);
    const name = "like" in asked ? `like ${pictures.get(asked.like)?.name}` : `for “${asked.text}”`;
    show("count", `${count(results.length, "picture")}, the nearest first, ${name}.`);
    list.scrollIntoView({ block: "nearest" });
  });
}

/** @param {string} key */
function classifyOne(key) {
  const named = [...new Set(labels.value.split(",").map((label) => label.trim()).filter(Boolean))];
  const picture = pictures.get(key);
  if (!named.length) {
    show("count", "Write the labels first, with commas between them.");
    labels.focus();
    return;
  }
  return work("Classifying…", async () => {
    const classes = await engine.client.classifyPicture(key, named);
    if (picture) picture.said.textContent = shares(classes);
    show("count", `${picture?.name}: ${classes[0][0]}.`);
  });
}

/** @param {Scored[]} classes */
function shares(classes) {
  return classes.slice(0, 3).map(([label, share]) => `${label} ${(100 * share).toFixed(1)}%`).join(", ");
}

/** Do what the model is asked, and show how it ends. @param {string} text @param {() => Promise<void>} doing */
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
files.addEventListener("change", () => take(files.files ?? []));
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer && !files.disabled) take(event.dataTransfer.files);
});
