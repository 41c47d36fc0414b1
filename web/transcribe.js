// The page of speech: text from a file or the microphone, shown as it arrives. The worker does the work.

import { make, part, show } from "./dom.js";
import { EngineCard } from "./engine.js";
import { BasculeError } from "./protocol.js";
import { decode, RATE, Recorder } from "./recording.js";
import { Waveform } from "./waveform.js";

/** @typedef {import("./protocol.js").Segment} Segment */

const record = part("record", HTMLButtonElement);
const file = part("file", HTMLInputElement);
const drop = part("drop", HTMLElement);
const stop = part("stop", HTMLButtonElement);
const language = part("language", HTMLSelectElement);
const task = part("task", HTMLSelectElement);
const list = part("segments", HTMLOListElement);
const recorder = new Recorder();
const waveform = new Waveform(part("waveform", HTMLCanvasElement));
/** The recording that waits for the model. @type {Float32Array<ArrayBuffer> | null} */
let queued = null;
/** @type {import("./protocol.js").Transcription | null} */
let transcription = null;

const engine = new EngineCard(["speech-model"], record, (state, fits) => {
  const usable = state !== "error" && (state !== "ready" || fits);
  record.disabled = !usable || (state === "busy" && !recorder.busy);
  file.disabled = record.disabled || recorder.busy;
  stop.hidden = state !== "busy" || recorder.busy;
  if (state === "error") queued = null;
  if (state === "ready" && fits) {
    showLanguages();
    const samples = queued;
    if (samples) queueMicrotask(() => transcribe(samples));
  }
});

/** The languages of the loaded model; a model of one has nothing to choose. */
function showLanguages() {
  const { loaded } = engine.client;
  const codes = loaded?.kind === "speech-model" ? loaded.languages : [];
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const options = codes.map((code) => new Option(names.of(code) ?? code, code));
  const before = language.value;
  language.replaceChildren(new Option("detected", ""), ...options);
  language.value = codes.includes(before) ? before : "";
  part("choices", HTMLElement).hidden = codes.length < 2;
}

/** @param {Blob} blob */
async function take(blob) {
  try {
    const samples = await decode(blob);
    waveform.set(samples);
    part("sound", HTMLElement).hidden = false;
    show("length", clock(samples.length / RATE));
    queued = samples;
    if (engine.state === "ready") await transcribe(samples);
  } catch (error) {
    showFault(error);
  }
}

/** @param {unknown} error of a recording: the model still answers */
function showFault(error) {
  if (engine.state === "ready" || engine.state === "busy") engine.showError(error, true);
  else show("notes", error instanceof BasculeError ? `${error.what} ${error.hint}` : String(error));
}

/** @param {Float32Array<ArrayBuffer>} samples */
async function transcribe(samples) {
  queued = null;
  list.replaceChildren();
  part("downloads", HTMLElement).hidden = true;
  part("nothing", HTMLElement).hidden = true;
  const seconds = samples.length / RATE;
  engine.setState("busy", "Transcribing…");
  engine.showWork(0, "Listening…");
  const began = performance.now();
  try {
    const chosen = part("choices", HTMLElement).hidden ? {} : { language: language.value || undefined, task: task.value };
    transcription = await engine.idle.during(() =>
      engine.client.transcribe(samples, RATE, chosen, {
        onSegment: add,
        onProgress: ({ done, total }) => {
          waveform.draw(done / total);
          engine.showWork(done / total, `${clock(done / 1000)} of ${clock(total / 1000)}`);
        },
      }),
    );
    const took = (performance.now() - began) / 1000;
    const { tier } = /** @type {import("./protocol.js").Loaded} */ (engine.client.loaded);
    engine.setState("ready", "Ready.");
    const speed = `${(seconds / took).toFixed(1)} times real-time speed`;
    show("speed", `${clock(seconds)} in ${took.toFixed(1)} s on ${tier}: ${speed}.`);
    part("nothing", HTMLElement).hidden = transcription.segments.length > 0;
    show("nothing", "No speech was found in this recording.");
    part("downloads", HTMLElement).hidden = !transcription.segments.length;
  } catch (error) {
    const cancelled = error instanceof BasculeError && error.category === "cancelled";
    if (cancelled && engine.state === "busy") engine.setState("ready", "Cancelled.");
    else if (!cancelled) engine.showError(error, error instanceof BasculeError && error.category === "input");
  }
}

/** @param {Segment} segment */
function add({ start, text }) {
  const time = make("time", "quiet", clock(start));
  list.append(make("li", "", time, make("span", "", text.trim())));
}

/** Minutes and seconds. @param {number} seconds */
function clock(seconds) {
  const rounded = Math.floor(seconds);
  return `${Math.floor(rounded / 60)}:${String(rounded % 60).padStart(2, "0")}`;
}

async function toggleRecording() {
  if (recorder.busy) {
    recorder.stop();
    return;
  }
  try {
    await recorder.start((recorded, unplugged) => {
      record.textContent = "Record";
      show("notes", unplugged ? "The microphone was disconnected; the recording until then is transcribed." : "");
      take(recorded);
    });
    record.textContent = "Stop recording";
  } catch (error) {
    showFault(error);
  }
}

/** @param {"srt" | "vtt"} kind */
function download(kind) {
  if (!transcription) return;
  const url = URL.createObjectURL(new Blob([transcription[kind]], { type: "text/plain" }));
  const link = make("a", "");
  link.href = url;
  link.download = `transcript.${kind}`;
  link.click();
  URL.revokeObjectURL(url);
}

record.addEventListener("click", toggleRecording);
stop.addEventListener("click", () => engine.client.cancel().catch(() => {}));
file.addEventListener("change", () => file.files?.[0] && take(file.files[0]));
part("srt", HTMLButtonElement).addEventListener("click", () => download("srt"));
part("vtt", HTMLButtonElement).addEventListener("click", () => download("vtt"));
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const dropped = event.dataTransfer?.files[0];
  if (dropped && !file.disabled) take(dropped);
});
