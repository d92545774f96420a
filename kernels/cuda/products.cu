/* Products with a weight matrix: how the three operations of a layer are matrix products. */
#include "kernels/cuda/products.h"

static inline cudaDataType_t blas_type(const float *unused) {
  (void)unused;
  return CUDA_R_32F;
}

static inline cudaDataType_t blas_type(const bf16 *unused) {
  (void)unused;
  return CUDA_R_16BF;
}

template <typename In, typename Out> static void multiply(Device *device, const CudaProduct *product) {
  if (!cuda_usable(device) || product->m == 0 || product->n == 0) return;
  const cudaDataType_t input = blas_type((const In *)NULL);
  const cudaDataType_t output = blas_type((const Out *)NULL);
  if (product->k > 0 && cuda_product_blas(device, product, input, output)) return;
  cuda_product_plain<In, Out>(device, product);
}

template <typename T>
static void linear_forward(Device *device, int64_t n, int64_t inputs, int64_t outputs, int64_t y_stride,
                           const elem *x, const elem *w, const elem *bias, elem *y) {
  CudaProduct product = {};
  product.what = "linear_forward";
  product.m = n;
  product.n = outputs;
  product.k = inputs;
  product.a = x;
  product.a_stride = inputs;
  product.b = w;
  product.b_transposed = true;
  product.bias = bias;
  product.c = y;
  product.c_stride = y_stride;
  multiply<T, T>(device, &product);
}

template <typename T>
static void linear_backward_input(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                  int64_t y_stride, const elem *dy, const elem *w, elem *dx) {
  CudaProduct product = {};
  product.what = "linear_backward_input";
  product.m = n;
  product.n = inputs;
  product.k = outputs;
  product.a = dy;
  product.a_stride = y_stride;
  product.b = w;
  product.c = dx;
  product.c_stride = inputs;
  multiply<T, T>(device, &product);
}

template <typename T>
static void linear_backward_weight(Device *device, int64_t n, int64_t inputs, int64_t outputs,
                                   int64_t y_stride, const elem *dy, const elem *x, float *dw, float *dbias) {
  if (n == 0) return;
  CudaProduct product = {};
  product.what = "linear_backward_weight";
  product.m = outputs;
  product.n = inputs;
  product.k = n;
  product.a = dy;
  product.a_stride = y_stride;
  product.a_transposed = true;
  product.b = x;
  product.c = dw;
  product.c_stride = inputs;
  product.add = true;
  multiply<T, float>(device, &product);
  if (dbias != NULL) cuda_columns_add<T>(device, n, outputs, y_stride, (const T *)dy, dbias, product.what);
}

template <typename T> void cuda_products_fill(Ops *ops) {
  ops->linear_forward = linear_forward<T>;
  ops->linear_backward_input = linear_backward_input<T>;
  ops->linear_backward_weight = linear_backward_weight<T>;
}

template void cuda_products_fill<float>(Ops *ops);
template void cuda_products_fill<bf16>(Ops *ops);
