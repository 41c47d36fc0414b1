// reduce_shared: sum over a workgroup by a tree in workgroup memory. WORKGROUP is a power of two.
var<workgroup> partial: array<f32, WORKGROUP>;

fn reduce_sum(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  workgroupBarrier();     // the total stands
  let total = partial[0];
  workgroupBarrier();     // everyone has read it before the next sum overwrites it
  return total;
}
