// largest: the largest number of x.
// One workgroup; a lane strides over x. WORKGROUP is a power of two.
// Slots: none.   Launch: (1, 1, 1).   Reference: largest.
override WORKGROUP: u32 = 64u;

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (1)

var<workgroup> highest: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (params.n == 0u) { return; }
  var peak = x[0];
  for (var i = lane; i < params.n; i += WORKGROUP) { peak = max(peak, x[i]); }
  highest[lane] = peak;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) { highest[lane] = max(highest[lane], highest[lane + half]); }
  }
  if (lane == 0u) { y[0] = highest[0]; }   // lane 0 wrote it itself
}
