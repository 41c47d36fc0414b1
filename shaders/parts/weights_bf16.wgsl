// weights_bf16: the upper 16 bits of f32.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 2)

const FIRST_UNITS = vec4f(1.0);
const LAST_UNITS = vec4f(1.0);

fn weight_run(row: u32, run: u32) -> Run {
  let at = (row * params.runs + run) * 16u;
  return Run(vec4f(1.0, 0.0, 1.0, 0.0),
             four_of(at), four_of(at + 2u), four_of(at + 4u), four_of(at + 6u), four_of(at + 8u),
             four_of(at + 10u), four_of(at + 12u), four_of(at + 14u));
}

fn four_of(at: u32) -> vec4f {
  let words = vec2u(weight[at], weight[at + 1u]);
  let even = bitcast<vec2f>(words * 65536u);
  let odd = bitcast<vec2f>(words & vec2u(0xffff0000u));
  return vec4f(even.x, odd.x, even.y, odd.y);
}
