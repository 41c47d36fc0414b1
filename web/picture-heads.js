// Facts about a picture's file, from its bytes, before a browser decodes it.
//
// Some browsers decode a truncated file, and leave the rest of the picture empty.

const PNG = 0x89504e47, PNG_END = 0x49454e44;
const JPEG = 0xffd8, JPEG_SCAN = 0xda, JPEG_END = 0xd9;
const GIF = 0x47494638, GIF_IMAGE = 0x2c, GIF_EXTENSION = 0x21;
const RIFF = 0x52494646;
/** Markers of a JPEG's frame are these but three. */
const [FIRST_FRAME, LAST_FRAME] = [0xc0, 0xcf], NO_FRAMES = [0xc4, 0xc8, 0xcc];

/** The width and height in a PNG, GIF or JPEG; null for any other file.
 * @param {DataView} bytes @returns {[number, number] | null} */
export function sizeOf(bytes) {
  if (kindOf(bytes) === PNG && bytes.byteLength >= 24) return [bytes.getUint32(16), bytes.getUint32(20)];
  if (kindOf(bytes) === GIF && bytes.byteLength >= 10) return [bytes.getUint16(6, true), bytes.getUint16(8, true)];
  for (const { marker, at } of segmentsOf(bytes)) {
    const isFrame = marker >= FIRST_FRAME && marker <= LAST_FRAME && !NO_FRAMES.includes(marker);
    if (isFrame && at + 9 <= bytes.byteLength) return [bytes.getUint16(at + 7), bytes.getUint16(at + 5)];
  }
  return null;
}

/** Whether a PNG, JPEG, GIF or WebP has all bytes of its picture, a moving GIF of its first; true of any other file.
 * @param {DataView} bytes */
export function isComplete(bytes) {
  const kind = kindOf(bytes);
  if (kind === PNG) return hasEnd(bytes);
  if (kind === GIF) return hasFirstImage(bytes);
  if (kind === RIFF) return bytes.getUint32(4, true) + 8 <= bytes.byteLength;
  return kind !== JPEG || hasScans(bytes);
}

/** @param {DataView} bytes */
function kindOf(bytes) {
  if (bytes.byteLength < 12) return 0;
  return bytes.getUint16(0) === JPEG ? JPEG : bytes.getUint32(0);
}

/** @param {DataView} bytes */
function hasEnd(bytes) {
  for (let at = 8; at + 12 <= bytes.byteLength; at += 12 + bytes.getUint32(at)) {
    if (bytes.getUint32(at + 4) === PNG_END) return true;
  }
  return false;
}

/** The segments of a JPEG before its first scan, and that one's marker.
 * @param {DataView} bytes @returns {Generator<{ marker: number, at: number }>} */
function* segmentsOf(bytes) {
  if (kindOf(bytes) !== JPEG) return;
  for (let at = 2; at + 4 <= bytes.byteLength; at += 2 + bytes.getUint16(at + 2)) {
    while (at + 4 < bytes.byteLength && bytes.getUint16(at) === 0xffff) at++; // bytes to fill up
    if (bytes.getUint8(at) !== 0xff) return;
    const marker = bytes.getUint8(at + 1);
    yield { marker, at };
    if (marker === JPEG_SCAN) return;
  }
}

/** Whether an end follows the scans; a camera's thumbnail before them has its own.
 * @param {DataView} bytes */
function hasScans(bytes) {
  const scan = [...segmentsOf(bytes)].at(-1);
  if (scan?.marker !== JPEG_SCAN) return false;
  for (let at = scan.at; at + 2 <= bytes.byteLength; at++) {
    if (bytes.getUint8(at) === 0xff && bytes.getUint8(at + 1) === JPEG_END) return true;
  }
  return false;
}

/** @param {DataView} bytes */
function hasFirstImage(bytes) {
  const end = bytes.byteLength;
  let at = 13 + coloursOf(bytes, 10);
  while (at + 10 < end) {
    const block = bytes.getUint8(at);
    if (block === GIF_IMAGE) return afterBlocks(bytes, at + 11 + coloursOf(bytes, at + 9)) <= end;
    if (block !== GIF_EXTENSION) return true; // the browser will say what is wrong
    at = afterBlocks(bytes, at + 2);
  }
  return false;
}

/** Bytes of the colour table that the flags at an offset announce. @param {DataView} bytes @param {number} flags */
function coloursOf(bytes, flags) {
  const packed = flags < bytes.byteLength ? bytes.getUint8(flags) : 0;
  return packed & 0x80 ? 3 << ((packed & 7) + 1) : 0;
}

/** The end of length-prefixed blocks, the last of length 0; Infinity past the file's end.
 * @param {DataView} bytes @param {number} at */
function afterBlocks(bytes, at) {
  while (at < bytes.byteLength) {
    const length = bytes.getUint8(at);
    at += 1 + length;
    if (!length) return at;
  }
  return Infinity;
}
