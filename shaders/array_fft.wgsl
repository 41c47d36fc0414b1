// array_fft: one pass of a Fourier transform of rows of n complex numbers, n a power of two.
//   Transforms of `span` elements are joined, `radix` (2 or 4) at a time, to ones of span * radix.
// A lane owns the `radix` elements that one butterfly joins; what it writes needs no reordering
// (Stockham's form), so passes read one buffer and write another.
// Slots: none.   Launch: flat over lanes = rows * n / radix.
// Source: Stockham 1966; Bainville 2010.
// Reference: numpy.fft.
override WORKGROUP: u32 = 64u;

struct Params { lanes: u32, n: u32, span: u32, radix: u32, sign: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2f>;        // (rows, n), real and imaginary
@group(0) @binding(2) var<storage, read_write> y: array<vec2f>;  // (rows, n)

fn times(a: vec2f, b: vec2f) -> vec2f {
  return vec2f(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// exp(2 pi i part / whole) for powers of two: WGSL's own cos may be wrong by 2^-11. The fraction is
// exact; polynomials hold within an eighth of a turn.
fn turned(part: u32, whole: u32) -> vec2f {
  let eighths = 8.0 * f32(part) / f32(whole);
  let quarter = u32(floor(0.5 * eighths + 0.5));
  let angle = (eighths - 2.0 * f32(quarter)) * 0.78539816339744831;
  let s = angle * angle;
  let sine = angle * (1.0 + s * (-1.6666667e-1 + s * (8.3333333e-3 + s * (-1.9841270e-4
      + s * 2.7557319e-6))));
  let cosine = 1.0 + s * (-0.5 + s * (4.1666667e-2 + s * (-1.3888889e-3 + s * 2.4801587e-5)));
  var found = vec2f(cosine, sine);
  if ((quarter & 1u) == 1u) { found = vec2f(-found.y, found.x); }
  if ((quarter & 2u) == 2u) { found = -found; }
  return vec2f(found.x, params.sign * found.y);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.lanes) { return; }
  let stride = params.n / params.radix;
  let j = index & (stride - 1u);
  let row = (index - j) * params.radix;
  let k = j & (params.span - 1u);
  let source = row + j;
  let target_ = row + (j - k) * params.radix + k;
  let span = params.span;
  let one = turned(k, span * params.radix);
  let a = x[source];
  let b = times(x[source + stride], one);
  if (params.radix == 2u) {
    y[target_] = a + b;
    y[target_ + span] = a - b;
    return;
  }
  let two = times(one, one);
  let c = times(x[source + 2u * stride], two);
  let d = times(x[source + 3u * stride], times(two, one));
  let odd = params.sign * vec2f(d.y - b.y, b.x - d.x);  // sign i (b - d)
  y[target_] = a + c + b + d;
  y[target_ + span] = a - c + odd;
  y[target_ + 2u * span] = a + c - b - d;
  y[target_ + 3u * span] = a - c - odd;
}
