// first_query_none: the queries are those of all keys.
fn first_query() -> u32 {
  return 0u;
}
