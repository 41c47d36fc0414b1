// cache_out_f16: a KV cache in f16, two a word, to write.
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;   // (slots, 2 * G * D / 2)

// Elements 2i and 2i + 1.
fn keep_pair(i: u32, pair: vec2f) {
  cache[i] = pack2x16float(pair);
}
