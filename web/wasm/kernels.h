// What all kernels share. Freestanding C: no libc, no threads, 32-bit pointers, SIMD of 128 bits.
//
// Tensors are dense, row-major float32, 4-byte aligned; sizes are in elements. A kernel never
// allocates: results and scratch memory come from the caller.
#ifndef BASCULE_KERNELS_H
#define BASCULE_KERNELS_H

#include <wasm_simd128.h>

// Only what carries this can be called from outside the module.
#define EXPORT __attribute__((visibility("default")))

#endif
