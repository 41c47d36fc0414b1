// Sound from a file or the microphone, as a speech model's samples.

import { BasculeError } from "./protocol.js";

/** Samples a second of what is decoded. */
export const RATE = 16000;
/** The limit of py/bascule/audio/recordings.py. */
const MAX_S = 4 * 3600;
/** Some engines never report a missing header: they get a second for a file of at most 1 MB,
 * which is not hours long, and ten for a larger one. */
const SMALL_NBYTES = 1_000_000;
const WAITS_MS = { small: 1_000, large: 10_000 };
/** Bytes of a second of speech in Opus at its lowest rate: a file without a readable length may be too long from
 * `MAX_S` of these on. Its beginning then tells how long it is about. */
const MIN_NBYTES_A_SECOND = 750;
const BEGINNING_NBYTES = 1 << 18;
/** Messages for an unavailable microphone, by the name of the browser's error. */
const REFUSALS = new Map([
  ["NotAllowedError", ["The microphone was refused.", "Allow it in the browser's settings of this site, or choose a file."]],
  ["NotFoundError", ["There is no microphone.", "Plug one in, or choose a file."]],
  ["NotReadableError", ["The microphone is in use elsewhere.", "Close the program that uses it, or choose a file."]],
]);

/** @param {string} what @param {string} hint */
function inputFault(what, hint) {
  return new BasculeError({ category: "input", what, hint });
}

/** One channel of samples at 16 kHz. @param {Blob} file @returns {Promise<Float32Array<ArrayBuffer>>} */
export async function decode(file) {
  if (!file.size) throw inputFault("The file is empty.", "Choose another one.");
  // Before it is decoded, which takes 2.3 GB for 10 hours.
  checkLength((await duration(file)) || (await estimated(file)));
  const buffer = await decoded(file);
  if (!buffer.length) throw inputFault("The file holds no samples.", "Choose another one.");
  checkLength(buffer.duration);
  return mixed(buffer);
}

/** @param {Blob} file @returns {Promise<AudioBuffer>} */
async function decoded(file) {
  // A context that decodes resamples, too.
  const context = new OfflineAudioContext(1, 1, RATE);
  try {
    return await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw inputFault("This browser cannot read that file as sound.", "Choose a WAV, MP3, FLAC or Ogg file.");
  }
}

/** Seconds of a file that may be too long, by those of its beginning; 0 for a smaller one. A fault
 * where the beginning cannot be read by itself. @param {Blob} file @returns {Promise<number>} */
async function estimated(file) {
  if (file.size <= MAX_S * MIN_NBYTES_A_SECOND) return 0;
  const beginning = file.slice(0, BEGINNING_NBYTES);
  return ((await decoded(beginning)).duration * file.size) / beginning.size;
}

/** @param {number} seconds */
function checkLength(seconds) {
  if (seconds > MAX_S) throw inputFault("The recording is longer than 4 hours.", "Split it, and transcribe each part.");
}

/** Seconds of a sound file from its header; 0 if unknown.
 * @param {Blob} file @returns {Promise<number>} */
async function duration(file) {
  const element = document.createElement("audio");
  const url = URL.createObjectURL(file);
  element.preload = "metadata";
  try {
    await new Promise((resolve) => {
      for (const event of ["loadedmetadata", "error"]) element.addEventListener(event, resolve);
      setTimeout(resolve, file.size > SMALL_NBYTES ? WAITS_MS.large : WAITS_MS.small);
      element.src = url;
    });
    return Number.isFinite(element.duration) ? element.duration : 0;
  } finally {
    element.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

/** The mean of all channels. @param {AudioBuffer} buffer */
function mixed(buffer) {
  const samples = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += data[i] / buffer.numberOfChannels;
  }
  return samples;
}

/** Records from the microphone until `stop`, or until it is unplugged. */
export class Recorder {
  /** @type {MediaRecorder | null} */
  #recorder = null;

  get busy() {
    return this.#recorder !== null;
  }

  /** Begin. `ended` gets what was recorded, and whether the microphone went away meanwhile.
   * @param {(recorded: Blob, unplugged: boolean) => void} ended */
  async start(ended) {
    const stream = await microphone();
    const recorder = new MediaRecorder(stream);
    /** @type {Blob[]} */
    const parts = [];
    let unplugged = false;
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = () => {
      this.#recorder = null;
      for (const track of stream.getTracks()) track.stop();
      ended(new Blob(parts, { type: recorder.mimeType }), unplugged);
    };
    for (const track of stream.getTracks()) {
      track.onended = () => {
        unplugged = true;
        this.stop();
      };
    }
    recorder.start(1000);
    this.#recorder = recorder;
  }

  stop() {
    if (this.#recorder?.state !== "inactive") this.#recorder?.stop();
  }
}

async function microphone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    const [what, hint] = REFUSALS.get(name) ?? ["This browser does not let the page use a microphone.", "Choose a file."];
    throw inputFault(what, hint);
  }
}
