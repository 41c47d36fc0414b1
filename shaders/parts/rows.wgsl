// rows: the queries of a KV head as rows, and the keys that they attend to. Row r is head r %
// sharing of those of this call that share the KV head, of its query r / sharing. The call does
// `queries` queries from first_query on, of the heads from y_head on; `sharing` of them share a KV
// head: in the cache, which holds `kept`, those from x_head on. The rest of y is left alone.
const HIDDEN = -3.4e38;   // the score of a key that a row does not see

struct Span { since: vec4u, until: vec4u }   // positions, for four rows

fn row_count() -> u32 {
  return params.queries * params.sharing;
}

// The vec4s at which the queries and results of four rows begin; rows past the last repeat it.
fn rows_at(rows: vec4u, kv_head: u32) -> vec4u {
  let here = min(rows, vec4u(row_count() - 1u));
  let head = params.y_head + kv_head * params.sharing + here % params.sharing;
  return ((params.first_query + here / params.sharing) * params.heads + head) * HEAD_VEC4S;
}

// What still stands in the ring, up to the row's own position; the last `window` of it if not 0.
fn span_of(rows: vec4u) -> Span {
  let query = params.first_query + min(rows / params.sharing, vec4u(params.queries - 1u));
  let until = position[0] + 1u + query;
  let oldest = max(position[0] + params.tokens, params.slots) - params.slots;
  let window = vec4u(select(params.window, 0xffffffffu, params.window == 0u));
  return Span(max(vec4u(oldest), max(until, window) - window), until);
}

fn seen(score: vec4f, key: u32, span: Span) -> vec4f {
  return select(vec4f(HIDDEN), score, (vec4u(key) >= span.since) & (vec4u(key) < span.until));
}
