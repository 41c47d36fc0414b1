// cached_attention_group: causal attention of grouped queries over a KV cache, four queries a lane.
//   y[t,h,:] = sum_j softmax_j(capped(dot(q[t,h], k[j,g]) * scale)) * v[j,g,:],  g = h / (H / G)
// over the positions j that a query attends to. A workgroup owns four rows (see the part) of a KV
// head. Its lanes take keys in turn, each with a softmax of its own, and are merged at the end.
// Queries and sums stay in named registers, up to eight tiles of 16 columns, and a key is loaded
// once for all four: on adapters that run on a CPU, whose choice this is, loads cost most.
// Slots: cache, rows, cap.   Launch: (queries * sharing / 4, KV heads done, 1).
// Reference: cached_attention.   Source: Dao et al. 2023 (Flash-Decoding).
override WORKGROUP: u32 = 8u;

struct Params { tokens: u32, slots: u32, heads: u32, kept: u32, window: u32, sharing: u32,
                x_head: u32, y_head: u32, first_query: u32, queries: u32, scale: f32, softcap: f32 }
struct Tile { a: mat4x4f, b: mat4x4f, c: mat4x4f, d: mat4x4f }   // four vec4s of four rows

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;         // (tokens, heads * D / 4)
@group(0) @binding(3) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;   // (tokens, heads * D / 4)

var<workgroup> tops: array<vec4f, WORKGROUP>;     // of four rows
var<workgroup> totals: array<vec4f, WORKGROUP>;
var<workgroup> parts: array<mat4x4f, 4u * WORKGROUP>;   // a lane's tile

fn columns(at: vec4u, i: u32) -> mat4x4f {
  return mat4x4f(q[at.x + i], q[at.y + i], q[at.z + i], q[at.w + i]);
}

fn load(at: vec4u, i: u32) -> Tile {
  if (i >= HEAD_VEC4S) { return Tile(); }
  return Tile(columns(at, i), columns(at, i + 1u), columns(at, i + 2u), columns(at, i + 3u));
}

fn score(key: u32, i: u32, t: Tile) -> vec4f {
  if (i >= HEAD_VEC4S) { return vec4f(); }
  return cache_at(key + i) * t.a + cache_at(key + i + 1u) * t.b + cache_at(key + i + 2u) * t.c
    + cache_at(key + i + 3u) * t.d;
}

fn mixed(m: mat4x4f, keep: vec4f, v: vec4f, w: vec4f) -> mat4x4f {
  return mat4x4f(m[0] * keep.x + v * w.x, m[1] * keep.y + v * w.y, m[2] * keep.z + v * w.z,
                 m[3] * keep.w + v * w.w);
}

fn add(value: u32, i: u32, t: Tile, keep: vec4f, w: vec4f) -> Tile {
  if (i >= HEAD_VEC4S) { return t; }
  return Tile(mixed(t.a, keep, cache_at(value + i), w),
              mixed(t.b, keep, cache_at(value + i + 1u), w),
              mixed(t.c, keep, cache_at(value + i + 2u), w),
              mixed(t.d, keep, cache_at(value + i + 3u), w));
}

// Store the sum of all lanes' tiles, each with its weights.
fn merge(lane: u32, at: vec4u, count: u32, i: u32, t: Tile, weights: vec4f) {
  if (i >= HEAD_VEC4S) { return; }
  parts[4u * lane] = mixed(t.a, weights, vec4f(), vec4f());
  parts[4u * lane + 1u] = mixed(t.b, weights, vec4f(), vec4f());
  parts[4u * lane + 2u] = mixed(t.c, weights, vec4f(), vec4f());
  parts[4u * lane + 3u] = mixed(t.d, weights, vec4f(), vec4f());
  workgroupBarrier();   // every lane has left its tile
  for (var k = lane; k < 4u * count; k += WORKGROUP) {
    var sum = vec4f();
    for (var l = 0u; l < WORKGROUP; l++) { sum += parts[4u * l + k % 4u][k / 4u]; }
    y[at[k / 4u] + i + k % 4u] = sum;
  }
  workgroupBarrier();   // they are read before the next ones come
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x * 4u;
  if (row >= row_count()) { return; }
  let at = rows_at(row + vec4u(0u, 1u, 2u, 3u), group.y);
  let span = span_of(row + vec4u(0u, 1u, 2u, 3u));
  let pitch = 2u * params.kept * HEAD_VEC4S;   // of a slot, keys first, values behind

  let q0 = load(at, 0u);    var s0 = Tile();
  let q1 = load(at, 4u);    var s1 = Tile();
  let q2 = load(at, 8u);    var s2 = Tile();
  let q3 = load(at, 12u);   var s3 = Tile();
  let q4 = load(at, 16u);   var s4 = Tile();
  let q5 = load(at, 20u);   var s5 = Tile();
  let q6 = load(at, 24u);   var s6 = Tile();
  let q7 = load(at, 28u);   var s7 = Tile();
  var top = vec4f(HIDDEN);   // largest scores so far, of four rows
  var total = vec4f();       // sums of exp(score - top)
  for (var j = span.since.x + lane; j < span.until.w; j += WORKGROUP) {
    let key = j % params.slots * pitch + (params.x_head + group.y) * HEAD_VEC4S;
    let sum = score(key, 0u, q0) + score(key, 4u, q1) + score(key, 8u, q2) + score(key, 12u, q3)
      + score(key, 16u, q4) + score(key, 20u, q5) + score(key, 24u, q6) + score(key, 28u, q7);
    let x = seen(capped(sum * params.scale), j, span);
    let higher = max(top, x);
    let keep = exp(top - higher);
    let w = select(exp(x - higher), vec4f(), x <= vec4f(HIDDEN));
    top = higher;
    total = total * keep + w;
    let value = key + pitch / 2u;
    s0 = add(value, 0u, s0, keep, w);
    s1 = add(value, 4u, s1, keep, w);
    s2 = add(value, 8u, s2, keep, w);
    s3 = add(value, 12u, s3, keep, w);
    s4 = add(value, 16u, s4, keep, w);
    s5 = add(value, 20u, s5, keep, w);
    s6 = add(value, 24u, s6, keep, w);
    s7 = add(value, 28u, s7, keep, w);
  }

  tops[lane] = top;
  totals[lane] = total;
  workgroupBarrier();   // every lane has left its softmax
  var highest = top;
  for (var i = 0u; i < WORKGROUP; i++) { highest = max(highest, tops[i]); }
  var whole = vec4f();
  for (var i = 0u; i < WORKGROUP; i++) { whole += totals[i] * exp(tops[i] - highest); }
  let weights = exp(top - highest) / whole;
  let count = min(4u, row_count() - row);
  merge(lane, at, count, 0u, s0, weights);
  merge(lane, at, count, 4u, s1, weights);
  merge(lane, at, count, 8u, s2, weights);
  merge(lane, at, count, 12u, s3, weights);
  merge(lane, at, count, 16u, s4, weights);
  merge(lane, at, count, 20u, s5, weights);
  merge(lane, at, count, 24u, s6, weights);
  merge(lane, at, count, 28u, s7, weights);
}
