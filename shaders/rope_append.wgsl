// rope_append: rotate q and k by the angles of their positions; k and v go into the cache.
//   (y[2i], y[2i+1]) = (x[2i], x[2i+1]) * turn[i] as complex numbers; or pairs (i, i + D/2)
// The angle of position p is the sum of those of p % 256 and p - p % 256: two rows of the table,
// multiplied. A lane owns four elements of a head: pairs 2j and 2j + 1, whole words of an
// f16 cache either way.
// Slots: cache_out.   Launch: flat over tokens * (H + 2G) * D / 4, of H and G those done here.
// Source: Su et al. 2021.   Reference: rope_append.
override WORKGROUP: u32 = 64u;
override ADJACENT: bool = false;   // pairs (2i, 2i+1), else (i, i + D/2)

// The cache holds the `kept` KV heads from first_kept on; they and the heads that share them are
// done here. The rest of y is left alone.
struct Params {
  tokens: u32, slots: u32, heads: u32, kv_heads: u32, size: u32, first_kept: u32, kept: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec2f>;       // (tokens, (H + 2G) * D / 2)
@group(0) @binding(3) var<storage, read> angles: array<vec2f>;    // (256 + R, D / 2): cos, sin
@group(0) @binding(4) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(5) var<storage, read_write> y: array<vec2f>;   // (tokens, H * D / 2)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let quads = params.size / 4u;
  let sharing = params.heads / params.kv_heads;
  let queries = params.kept * sharing;
  let rows = queries + 2u * params.kept;
  let token = index / (rows * quads);
  if (token >= params.tokens) { return; }
  let row = index / quads % rows;   // queries first, keys and values behind
  let quad = index % quads;
  let here = position[0] + token;

  // The elements as pairs of neighbours: in which two words of the head they lie.
  let first = select(quad, 2u * quad, ADJACENT);
  let second = select(quad + quads, 2u * quad + 1u, ADJACENT);
  let kv_head = params.first_kept + (row - queries) % params.kept;
  let value = select(0u, params.kv_heads, row >= queries + params.kept);
  let query = params.first_kept * sharing + row;
  let head = select(params.heads + value + kv_head, query, row < queries);
  let start = (token * (params.heads + 2u * params.kv_heads) + head) * 2u * quads;
  var a = qkv[start + first];
  var b = qkv[start + second];
  if (head < params.heads + params.kv_heads) {
    let near = here % 256u * 2u * quads + quad;
    let far = (256u + here / 256u) * 2u * quads + quad;
    let cosine = angles[near] * angles[far] - angles[near + quads] * angles[far + quads];
    let sine = angles[near] * angles[far + quads] + angles[near + quads] * angles[far];
    let real = select(a, vec2f(a.x, b.x), ADJACENT);
    let imaginary = select(b, vec2f(a.y, b.y), ADJACENT);
    let turned = vec4f(real * cosine - imaginary * sine, real * sine + imaginary * cosine);
    a = select(turned.xy, turned.xz, ADJACENT);
    b = select(turned.zw, turned.yw, ADJACENT);
  }

  if (head < params.heads) {
    let out = (token * params.heads + head) * 2u * quads;
    y[out + first] = a;
    y[out + second] = b;
  } else if (token + params.slots >= params.tokens) {   // else a later token takes this slot
    let slot = (here % params.slots * 2u * params.kept + row - queries) * 2u * quads;
    keep_pair(slot + first, a);
    keep_pair(slot + second, b);
  }
}
