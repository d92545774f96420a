/* Matrix products on the compute queue, and what they are made from. */
#ifndef RINGGPT_CUDA_PRODUCTS_H
#define RINGGPT_CUDA_PRODUCTS_H

#include "kernels/cuda/cuda_device.h"

/* c (m, n) = a (m, k) b (k, n) + bias (n), or added to c, all row-major; a stored transposed is (k, m), b
 * stored transposed (n, k); a NULL bias is left out. Rows of a and c as they are stored are `stride` elements
 * apart, those of b have no holes. Sums are float, rounded once to c's type. */
typedef struct CudaProduct {
  const char *what; /* the operation's name */
  int64_t m, n, k;
  const void *a;
  int64_t a_stride;
  const void *b;
  const void *bias; /* of c's type */
  void *c;
  int64_t c_stride;
  bool a_transposed;
  bool b_transposed;
  bool add;
} CudaProduct;

/* The product by cuBLASLt; the types are those of a and b, and of c. False where cuBLASLt refuses it: then
 * nothing has been done. m, n, k > 0. */
bool cuda_product_blas(Device *device, const CudaProduct *product, cudaDataType_t input,
                       cudaDataType_t output);

/* The product by a plain kernel, for what cuBLASLt refuses: any sizes and alignments, k may be 0. */
template <typename In, typename Out> void cuda_product_plain(Device *device, const CudaProduct *product);

/* sums (c) += the sums of the columns of x (n, c), rows `stride` elements apart, taken in double. */
template <typename T>
void cuda_columns_add(Device *device, int64_t n, int64_t c, int64_t stride, const T *x, float *sums,
                      const char *what);

#endif
