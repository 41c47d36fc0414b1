// rows: the queries of a KV head as rows, and the keys that they see. Row r is head r % (H / G) of
// those that share the KV head, of token r / (H / G).
const HIDDEN = -3.4e38;   // the score of a key that a row does not see

struct Span { since: vec4u, until: vec4u }   // positions, for four rows

fn row_count() -> u32 {
  return params.tokens * (params.heads / params.kv_heads);
}

// The vec4s at which the queries and results of four rows begin; rows past the last repeat it.
fn rows_at(rows: vec4u, kv_head: u32) -> vec4u {
  let group = params.heads / params.kv_heads;
  let here = min(rows, vec4u(row_count() - 1u));
  return (here / group * params.heads + kv_head * group + here % group) * HEAD_VEC4S;
}

// What still stands in the ring, up to the row's own position; the last `window` of it if not 0.
fn span_of(rows: vec4u) -> Span {
  let tokens = min(rows / (params.heads / params.kv_heads), vec4u(params.tokens - 1u));
  let until = position[0] + 1u + tokens;
  let oldest = max(position[0] + params.tokens, params.slots) - params.slots;
  let window = vec4u(select(params.window, 0xffffffffu, params.window == 0u));
  return Span(max(vec4u(oldest), max(until, window) - window), until);
}

fn seen(score: vec4f, key: u32, span: Span) -> vec4f {
  return select(vec4f(HIDDEN), score, (vec4u(key) >= span.since) & (vec4u(key) < span.until));
}
