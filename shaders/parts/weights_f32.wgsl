// weights_f32: plain numbers; for gated_linear.
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;   // (rows, K / 4)

const FIRST_UNITS = vec4f(1.0);
const LAST_UNITS = vec4f(1.0);

fn weight_run(row: u32, run: u32) -> Run {
  let at = (row * params.runs + run) * 8u;
  return Run(vec4f(1.0, 0.0, 1.0, 0.0), weight[at], weight[at + 1u], weight[at + 2u],
             weight[at + 3u], weight[at + 4u], weight[at + 5u], weight[at + 6u], weight[at + 7u]);
}
