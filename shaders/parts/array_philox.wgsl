// array_philox: random words for a key and a counter. Source: Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3": Philox 4x32 with ten rounds.
fn product_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (other >> 16u);
}

// Word `at` of the stream that the key names: four words a counter.
fn philox(at: u32, low: u32, high: u32) -> u32 {
  var c = vec4u(at >> 2u, 0u, 0u, 0u);
  var key = vec2u(low, high);
  for (var i = 0u; i < 10u; i++) {
    let h0 = product_high(0xd2511f53u, c.x);
    let h1 = product_high(0xcd9e8d57u, c.z);
    c = vec4u(h1 ^ c.y ^ key.x, 0xcd9e8d57u * c.z, h0 ^ c.w ^ key.y, 0xd2511f53u * c.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c[at & 3u];
}
