// Pictures from files, as pixels that a model of images takes.

import { BasculeError } from "./protocol.js";

/** As py/bascule/vision/decoding.py has it. */
const MOST_PIXELS = 2 ** 26;
/** A JPEG's frame stands behind what a camera has written of itself. */
const HEAD_NBYTES = 1 << 18;

/** @param {string} what @param {string} hint */
function inputFault(what, hint) {
  return new BasculeError({ category: "input", what, hint });
}

/** A picture as the browser decodes it: rotated as its EXIF says, of an animation the first frame.
 * @param {File} file @returns {Promise<ImageData>} */
export async function decodePicture(file) {
  if (!file.size) throw inputFault(`${file.name} is empty.`, "Choose another file.");
  // Before it is decoded: a small file may hold a picture that no memory takes.
  const claimed = sizeOf(new DataView(await file.slice(0, HEAD_NBYTES).arrayBuffer()));
  if (claimed) checkSize(file.name, ...claimed);
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw inputFault(`This browser cannot read ${file.name} as a picture.`, "Choose a PNG, JPEG, WebP or GIF file that is whole.");
  }
  try {
    checkSize(file.name, bitmap.width, bitmap.height);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw inputFault("This browser draws no pictures here.", "Reload the page.");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/** @param {string} name @param {number} width @param {number} height */
function checkSize(name, width, height) {
  if (width * height <= MOST_PIXELS) return;
  const size = `${width.toLocaleString("en")} x ${height.toLocaleString("en")}`;
  throw inputFault(`${name} has ${size} pixels, more than 67 million.`, "Make it smaller.");
}

/** Width and height that a PNG, GIF or JPEG claims; null of any other file.
 * @param {DataView} head @returns {[number, number] | null} */
export function sizeOf(head) {
  if (head.byteLength >= 24 && head.getUint32(0) === 0x89504e47) return [head.getUint32(16), head.getUint32(20)];
  if (head.byteLength >= 10 && head.getUint32(0) === 0x47494638) return [head.getUint16(6, true), head.getUint16(8, true)];
  if (head.byteLength < 4 || head.getUint16(0) !== 0xffd8) return null;
  for (let at = 2; at + 9 <= head.byteLength; at += 2 + head.getUint16(at + 2)) {
    const marker = head.getUint16(at);
    if (marker >> 8 !== 0xff) return null;
    const isFrame = marker >= 0xffc0 && marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker);
    if (isFrame) return [head.getUint16(at + 7), head.getUint16(at + 5)];
  }
  return null;
}
