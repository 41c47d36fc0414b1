// Pictures from files, as pixels that a model of images takes.

import { isComplete, sizeOf } from "./picture-heads.js";
import { BasculeError } from "./protocol.js";

/** The limit of py/bascule/vision/decoding.py. */
const MAX_PIXELS = 2 ** 26;
const WHOLE = "Choose a complete PNG, JPEG, WebP or GIF file.";

/** @param {string} what @param {string} hint */
function inputFault(what, hint) {
  return new BasculeError({ category: "input", what, hint });
}

/** A picture as the browser decodes it: rotated by its EXIF, of an animation the first frame.
 * @param {File} file @returns {Promise<ImageBitmap>} */
async function openPicture(file) {
  if (!file.size) throw inputFault(`${file.name} is empty.`, "Choose another file.");
  const bytes = new DataView(await file.arrayBuffer());
  // Before it is decoded: a small file may contain a picture that fits no memory.
  const claimed = sizeOf(bytes);
  if (claimed) checkSize(file.name, ...claimed);
  if (!isComplete(bytes)) throw inputFault(`${file.name} is truncated.`, WHOLE);
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw inputFault(`This browser cannot read ${file.name} as a picture.`, WHOLE);
  }
  try {
    checkSize(file.name, bitmap.width, bitmap.height);
    return bitmap;
  } catch (error) {
    bitmap.close();
    throw error;
  }
}

/** The pixels of a picture no wider and no higher than `maxSide`. @param {File} file @param {number} [maxSide]
 * @returns {Promise<ImageData>} */
export async function decodePicture(file, maxSide = Infinity) {
  const bitmap = await openPicture(file);
  try {
    const scale = Math.min(1, maxSide / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (!context) throw inputFault("This browser cannot draw pictures here.", "Reload the page.");
    context.drawImage(bitmap, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  } finally {
    bitmap.close();
  }
}

/** @param {string} name @param {number} width @param {number} height */
function checkSize(name, width, height) {
  if (width * height <= MAX_PIXELS) return;
  const size = `${width.toLocaleString("en")} x ${height.toLocaleString("en")}`;
  throw inputFault(`${name} has ${size} pixels, more than 67 million.`, "Make it smaller.");
}
