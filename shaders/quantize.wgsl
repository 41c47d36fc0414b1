// quantize: rows of floats become blocks of a weight, and the error that this makes is summed up.
//   sums[s] = (sum of squared errors, sum of squares, numbers no block can hold, largest error)
// A lane makes the blocks of a whole number of words (one, or two where a block is 18 or 34 bytes),
// so that no two lanes write one word. A workgroup adds to its own element of the sums: a dispatch
// over the next rows goes on from there, and the host adds up what remains.
// Slots: blocks.   Launch: flat over the lanes of blocks first to first + count - 1.
// Reference: backend/quantize.py.   Source: ggml's quantize_row_*_ref, by way of the gguf package.
override WORKGROUP: u32 = 64u;

// first, count: in blocks of the weight; sums: the element of workgroup 0.
struct Params { first: u32, count: u32, sums: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4u>;             // (count, 8), bits of f32
@group(0) @binding(2) var<storage, read_write> blocks: array<u32>;    // the whole weight
@group(0) @binding(3) var<storage, read_write> sums: array<vec4f>;

var<workgroup> found: array<vec4f, WORKGROUP>;

const INFINITE = 0x7f800000u;

// The result of quantize() for a block that its format cannot hold.
const UNFIT = vec4f(0.0, 0.0, 32.0, 0.0);

fn joined(a: vec4f, b: vec4f) -> vec4f {
  return vec4f(a.xyz + b.xyz, max(a.w, b.w));
}

// Four floats; 0 for what is not finite, by its bits: compilers may assume that all are.
fn x_at(at: u32) -> vec4f {
  let bits = x[at];
  let finite = (bits & vec4u(INFINITE)) != vec4u(INFINITE);
  return bitcast<vec4f>(select(vec4u(), bits, finite));
}

// What four floats add to the sums where their block holds y.
fn error_of(at: u32, y: vec4f) -> vec4f {
  let bits = x[at];
  let unfit = select(vec4f(), vec4f(1.0), (bits & vec4u(INFINITE)) == vec4u(INFINITE));
  let value = x_at(at);
  let error = abs(value - y);
  let largest = max(max(error.x, error.y), max(error.z, error.w));
  return vec4f(dot(error, error), dot(value, value), dot(unfit, vec4f(1.0)), largest);
}

// 1 / d, or 0 where that is no number; d is 0 to some devices where it is subnormal.
fn inverse(d: f32) -> f32 {
  return select(0.0, 1.0 / d, abs(d) >= 0x1p-126);
}

// A byte of each.
fn packed_bytes(q: vec4u) -> u32 {
  return (q.x & 255u) | ((q.y & 255u) << 8u) | ((q.z & 255u) << 16u) | (q.w << 24u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let own = params.first / BLOCKS_A_LANE + group.x * WORKGROUP + lane;
  let end = params.first + params.count;
  var sum = vec4f();
  for (var i = 0u; i < BLOCKS_A_LANE; i++) {
    let block = own * BLOCKS_A_LANE + i;
    if (block >= params.first && block < end) {
      sum = joined(sum, quantize(block, (block - params.first) * 8u));
    }
  }
  found[lane] = sum;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) { found[lane] = joined(found[lane], found[lane + half]); }
  }
  if (lane == 0u) {
    let at = params.sums + group.x;
    sums[at] = joined(sums[at], found[0]);
  }
}
