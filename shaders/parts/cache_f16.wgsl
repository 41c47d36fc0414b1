// cache_f16: a KV cache in f16, two a word, to read.
@group(0) @binding(2) var<storage, read> cache: array<vec2u>;   // (slots, 2 * G * D / 4)

// Elements 4i to 4i + 3.
fn cache_at(i: u32) -> vec4f {
  let words = cache[i];
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
