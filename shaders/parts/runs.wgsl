// runs: 32 weights of a row, 32 values of x, and their product.

// Weights four by four: weight = scale * unit * q + offset. `scales` holds scale and offset of the
// first 16, then of the last 16; the units are the weights part's FIRST_UNITS and LAST_UNITS.
struct Run {
  scales: vec4f,
  q0: vec4f, q1: vec4f, q2: vec4f, q3: vec4f, q4: vec4f, q5: vec4f, q6: vec4f, q7: vec4f,
}

// Values of x times the units, once for many weights; and what they add up to without.
struct Xs {
  sums: vec2f,   // of the first 16, of the last 16
  x0: vec4f, x1: vec4f, x2: vec4f, x3: vec4f, x4: vec4f, x5: vec4f, x6: vec4f, x7: vec4f,
}

fn xs_of(a: vec4f, b: vec4f, c: vec4f, d: vec4f, e: vec4f, f: vec4f, g: vec4f, h: vec4f) -> Xs {
  let sums = vec2f(dot(a + b + c + d, vec4f(1.0)), dot(e + f + g + h, vec4f(1.0)));
  return Xs(sums, a * FIRST_UNITS, b * FIRST_UNITS, c * FIRST_UNITS, d * FIRST_UNITS,
            e * LAST_UNITS, f * LAST_UNITS, g * LAST_UNITS, h * LAST_UNITS);
}

fn product(w: Run, x: Xs) -> f32 {
  let first = dot(w.q0, x.x0) + dot(w.q1, x.x1) + dot(w.q2, x.x2) + dot(w.q3, x.x3);
  let last = dot(w.q4, x.x4) + dot(w.q5, x.x5) + dot(w.q6, x.x6) + dot(w.q7, x.x7);
  return dot(w.scales, vec4f(first, x.sums.x, last, x.sums.y));
}
