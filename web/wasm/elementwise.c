#include "kernels.h"

// y[i] = a[i] + b[i % period], n of them; n is a multiple of the period.
EXPORT void add(float *y, const float *a, const float *b, int n, int period) {
  for (int first = 0; first < n; first += period) {
    add_rows(y + first, a + first, b, period);
  }
}

// y[i] = a[i] * b[i], n of them.
EXPORT void multiply(float *y, const float *a, const float *b, int n) {
  multiply_rows(y, a, b, n);
}
