// pixels: an image as the words of a canvas: from the lowest byte on blue, green, red and 255.
// A lane owns one word; rows of words are `pitch` apart, and those past the width become 0.
// `shades` reads floats from 0 (black, and what is no number) to 1: one a pixel, or three or four,
// red first, of which the fourth is ignored. `words` reads a word a pixel: red in the lowest byte,
// green, blue, and a byte that is ignored.
// Slots: none.   Launch: count = (pitch, height).   Reference: kernels/canvas.py.
struct Params { width: u32, height: u32, channels: u32, pitch: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<f32>;
@group(0) @binding(2) var<storage, read> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> pixels: array<u32>;

const OPAQUE: u32 = 0xff000000u;

fn level(x: f32) -> u32 {
  return u32(round(255.0 * select(0.0, min(x, 1.0), x > 0.0)));
}

@compute @workgroup_size(8, 8)
fn shades(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.pitch || id.y >= params.height) { return; }
  let at = params.channels * (id.y * params.width + id.x);
  var word = 0u;
  if (id.x < params.width) {
    let red = level(image[at]);
    if (params.channels == 1u) {
      word = OPAQUE | (red * 0x010101u);
    } else {
      word = OPAQUE | (red << 16u) | (level(image[at + 1u]) << 8u) | level(image[at + 2u]);
    }
  }
  pixels[id.y * params.pitch + id.x] = word;
}

@compute @workgroup_size(8, 8)
fn words(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.pitch || id.y >= params.height) { return; }
  var word = 0u;
  if (id.x < params.width) {
    let given = packed[id.y * params.width + id.x];
    word = OPAQUE | ((given & 0xffu) << 16u) | (given & 0xff00u) | ((given >> 16u) & 0xffu);
  }
  pixels[id.y * params.pitch + id.x] = word;
}
