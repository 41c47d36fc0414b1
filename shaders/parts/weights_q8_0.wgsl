// weights_q8_0: blocks of 34 bytes: scale as half, then 32 signed bytes. Every other block starts
// inside a word. Bytes are read 128 larger, and so without a sign.
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
  let both = f16_pair(a);
  let scale = select(both.x, both.y, odd);
  let sign = 0x80808080u;
  return Run(vec2f(scale, -128.0 * scale).xyxy,
             four(word_at(a, b, odd) ^ sign), four(word_at(b, c, odd) ^ sign),
             four(word_at(c, d, odd) ^ sign), four(word_at(d, e, odd) ^ sign),
             four(word_at(e, f, odd) ^ sign), four(word_at(f, g, odd) ^ sign),
             four(word_at(g, h, odd) ^ sign), four(word_at(h, i, odd) ^ sign));
}
