/* Which algorithm cuBLASLt is to take for a product: asked once for a product's form and kept. Asked again it
 * gives the same answer, on one device and with one version of the library, so a plan that was given up for a
 * newer one costs time and no bits. */
#ifndef RINGGPT_CUDA_PLANS_H
#define RINGGPT_CUDA_PLANS_H

#include <cublasLt.h>
#include <stdbool.h>
#include <stdint.h>

/* All that the choice depends on. Without holes, so that two are compared as bytes. */
typedef struct CudaPlanKey {
  int64_t sizes[3];       /* m, n, k */
  int64_t strides[2];     /* of a, c */
  uint32_t alignments[4]; /* of a, b, c and the bias, in bytes */
  int32_t types[2];       /* cudaDataType_t of a and b, and of c and the bias */
  uint8_t transposed[2];  /* a, b */
  uint8_t add;
  uint8_t bias;
  uint32_t unused; /* 0 */
} CudaPlanKey;

typedef struct CudaPlan {
  CudaPlanKey key;
  bool refused; /* cuBLASLt has no algorithm for it */
  cublasLtMatmulAlgo_t algorithm;
} CudaPlan;

/* Products of different form in a training step: some twenty. */
enum { CUDA_PLANS = 128 };

/* A ring of plans: the oldest makes room. */
typedef struct CudaPlans {
  CudaPlan plan[CUDA_PLANS];
  int64_t made; /* plans ever put in */
} CudaPlans;

#endif
