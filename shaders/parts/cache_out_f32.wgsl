// cache_out_f32: a KV cache of floats, to write.
@group(0) @binding(2) var<storage, read_write> cache: array<vec2f>;   // (slots, 2 * G * D / 2)

// Elements 2i and 2i + 1.
fn keep_pair(i: u32, pair: vec2f) {
  cache[i] = pair;
}
