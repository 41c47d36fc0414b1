// cache_f32: a KV cache of floats, to read.
@group(0) @binding(2) var<storage, read> cache: array<vec4f>;   // (slots, 2 * G * D / 4)

// Elements 4i to 4i + 3.
fn cache_at(i: u32) -> vec4f {
  return cache[i];
}
