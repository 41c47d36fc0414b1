// weights_f16: subnormals, under 6e-5, may count as 0 on some adapters.
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
  return vec4f(unpack2x16float(weight[at]), unpack2x16float(weight[at + 1u]));
}
