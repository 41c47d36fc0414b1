// frames: overlapping frames of a signal, each times a window.
//   y[f,k] = window[k] * x[reflect(f * step + k - pad)]
// A lane owns one element of y. x is reflected at both ends, its end samples once.
// Slots: none.   Launch: flat over count * width.   Reference: frames.
override WORKGROUP: u32 = 64u;

struct Params { count: u32, width: u32, samples: u32, step: u32, pad: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (samples)
@group(0) @binding(2) var<storage, read> window: array<f32>;    // (width)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (count, width)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.count * params.width) { return; }
  let k = index % params.width;
  let last = i32(params.samples) - 1;
  // pad < samples: one reflection at each end brings every place into x.
  let at = abs(i32(index / params.width * params.step + k) - i32(params.pad));
  y[index] = window[k] * x[last - abs(last - at)];
}
