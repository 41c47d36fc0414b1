#include "kernels.h"

// y (batch, columns) of x (batch, tokens, columns): the mean over each text's first lengths[b]
// tokens, at least one.
EXPORT void mean_pool(float *y, const float *x, const unsigned *lengths, int batch, int tokens,
                      int columns) {
  for (int b = 0; b < batch; b++, y += columns, x += tokens * columns) {
    unsigned length = lengths[b] < 1 ? 1 : lengths[b];
    int count = (int)MIN(length, (unsigned)tokens);
    for (int i = 0; i < columns; i++) {
      y[i] = x[i];
    }
    for (int t = 1; t < count; t++) {
      add_rows(y, y, x + t * columns, columns);
    }
    for (int i = 0; i < columns; i++) {
      y[i] /= length;
    }
  }
}

// y (batch, columns) of x (batch, tokens, columns): each text's token 0.
EXPORT void first_pool(float *y, const float *x, const unsigned *lengths, int batch, int tokens,
                       int columns) {
  (void)lengths;  // it is called as mean_pool is
  for (int b = 0; b < batch; b++, y += columns, x += tokens * columns) {
    for (int i = 0; i < columns; i++) {
      y[i] = x[i];
    }
  }
}
