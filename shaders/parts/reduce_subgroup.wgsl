// reduce_subgroup: sum over a workgroup by subgroups, then over one value a subgroup.
// A subgroup's first lane writes its sum, all others zero, so that no order of lanes is assumed and
// any subgroup size serves; the second sum runs in a fixed order, so that it is reproducible.
var<workgroup> partial: array<f32, WORKGROUP>;

fn reduce_sum(value: f32, lane: u32) -> f32 {
  let sum = subgroupAdd(value);
  partial[lane] = select(0.0, sum, lane == subgroupBroadcastFirst(lane));
  workgroupBarrier();   // every subgroup has left its sum
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { total += partial[i]; }
  workgroupBarrier();   // everyone has read them before the next sum overwrites them
  return total;
}
