// patches: the windows of a convolution over an image (im2col), a row for each place.
//   y[l * out_width + ox, (ky * k_width + kx) * C + c] = x[b, oy * stride_y - pad_y + ky, ..., c]
// where line first + l is line oy of image b; 0 outside the image. A lane owns one element of y.
// Slots: none.   Launch: flat over y.   Reference: patches.
override WORKGROUP: u32 = 64u;

struct Params {
  n: u32, cols: u32, channels: u32, height: u32, width: u32, out_height: u32, out_width: u32,
  k_width: u32, stride_y: u32, stride_x: u32, pad_y: u32, pad_x: u32, first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (B, height, width, channels)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (lines * out_width, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let place = index / params.cols;
  let line = params.first + place / params.out_width;
  let col = index % params.cols;
  let tap = col / params.channels;
  // Left of or above the image these wrap around to what is past its end.
  let row_in = line % params.out_height * params.stride_y + tap / params.k_width - params.pad_y;
  let col_in = place % params.out_width * params.stride_x + tap % params.k_width - params.pad_x;
  var value = 0.0;
  if (row_in < params.height && col_in < params.width) {
    let image_row = line / params.out_height * params.height + row_in;
    value = x[(image_row * params.width + col_in) * params.channels + col % params.channels];
  }
  y[index] = value;
}
