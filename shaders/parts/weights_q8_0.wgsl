// weights_q8_0: blocks of 34 bytes: scale as half, then 32 signed bytes. Every other block starts
// in the middle of a word.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 32 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS;

fn weight_run(row: u32, run: u32) -> Run {
  let block = row * params.runs + run;
  let at = block * 17u / 2u;
  let odd = (block & 1u) == 1u;
  let a = weight[at];
  let b = weight[at + 1u];
  let c = weight[at + 2u];
  let d = weight[at + 3u];
  let e = weight[at + 4u];
  let f = weight[at + 5u];
  let g = weight[at + 6u];
  let h = weight[at + 7u];
  let i = weight[at + 8u];
  let both = halves(a);
  let scale = select(both.x, both.y, odd);
  return Run(vec2f(scale, -128.0 * scale).xyxy,
             signed(a, b, odd), signed(b, c, odd), signed(c, d, odd), signed(d, e, odd),
             signed(e, f, odd), signed(f, g, odd), signed(g, h, odd), signed(h, i, odd));
}

// Four signed bytes, plus 128, that start in the middle of the first word or with the second.
fn signed(first: u32, second: u32, odd: bool) -> vec4f {
  return four(select((first >> 16u) | (second << 16u), second, odd) ^ 0x80808080u);
}
