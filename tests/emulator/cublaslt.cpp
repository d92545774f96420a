/* cuBLASLt for the emulator: plain loops in the order of the stream, as strict as the library's documentation
 * and stricter where a test gains by it.
 *
 *  - An algorithm remembers what it was chosen for; another product with it, or operands that are aligned
 *    less than was promised, are CUBLAS_STATUS_INVALID_VALUE.
 *  - bf16 operands whose columns do not begin at multiples of 16 bytes are refused, as some versions and GPUs
 *    do. EMULATED_BLAS=refuse refuses every product. So callers show what they do then.
 *  - Where a reduction is allowed whose order may change, the sums run the other way at every second call.
 *  - The workspace is filled with 0xFF.
 * Sixteen products at a time are added exactly and then to a float, about as tensor cores do. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "emulator.h"

struct cublasLtContext {
  int device;
};

namespace {

constexpr int STEP = 16;
constexpr uint64_t WORKSPACE_BYTES = 4096;
constexpr uint32_t COLUMN_ALIGNMENT = 16;

struct Layout {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t leading;
};

struct Operation {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transposed_a, transposed_b;
  uint32_t epilogue;
  int32_t bias_type;
  const void *bias;
};

struct Preference {
  uint64_t workspace_bytes;
  uint32_t schemes;
  uint32_t alignments[4];
};

/* What an algorithm was chosen for. */
struct Choice {
  uint64_t m, n, k;
  uint32_t alignments[4];
  uint32_t schemes;
  uint32_t form; /* the kinds of operands and the epilogue */
};

static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "a layout fits");
static_assert(sizeof(Operation) <= sizeof(cublasLtMatmulDescOpaque_t), "an operation fits");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "a preference fits");
static_assert(sizeof(Choice) <= sizeof(cublasLtMatmulAlgo_t), "a choice fits");

template <typename To, typename Opaque> To unwrap(const Opaque *opaque) {
  To value;
  memcpy((void *)&value, (const void *)opaque, sizeof value);
  return value;
}

template <typename From, typename Opaque> void wrap(const From &value, Opaque *opaque) {
  memset((void *)opaque, 0, sizeof *opaque);
  memcpy((void *)opaque, (const void *)&value, sizeof value);
}

/* A product whose parts are known: D = alpha op(A) op(B) + beta C + bias, in columns. */
struct Product {
  Operation operation;
  Layout a, b, c, d;
  uint64_t m, n, k;
};

size_t element_bytes(cudaDataType type) {
  return type == CUDA_R_32F ? sizeof(float) : sizeof(__nv_bfloat16);
}

float element(const void *matrix, cudaDataType type, int64_t at) {
  return type == CUDA_R_32F ? ((const float *)matrix)[at]
                            : __bfloat162float(((const __nv_bfloat16 *)matrix)[at]);
}

bool same_layout(const Layout &x, const Layout &y) {
  return x.type == y.type && x.rows == y.rows && x.columns == y.columns && x.leading == y.leading;
}

/* Sizes and types that fit each other, and combinations that the library's table has. */
cublasStatus_t read_product(cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                            Product *product) {
  const Operation how = unwrap<Operation>(operation);
  *product = {how, unwrap<Layout>(a), unwrap<Layout>(b), unwrap<Layout>(c), unwrap<Layout>(d), 0, 0, 0};
  const bool a_turned = how.transposed_a == CUBLAS_OP_T;
  const bool b_turned = how.transposed_b == CUBLAS_OP_T;
  product->m = a_turned ? product->a.columns : product->a.rows;
  product->k = a_turned ? product->a.rows : product->a.columns;
  product->n = b_turned ? product->b.rows : product->b.columns;
  const uint64_t b_k = b_turned ? product->b.columns : product->b.rows;
  for (const Layout *layout : {&product->a, &product->b, &product->c, &product->d}) {
    if (layout->rows == 0 || layout->columns == 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (layout->leading < (int64_t)layout->rows) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (b_k != product->k || product->d.rows != product->m || product->d.columns != product->n ||
      !same_layout(product->c, product->d)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cudaDataType input = product->a.type;
  const cudaDataType output = product->d.type;
  if (product->b.type != input || how.compute != CUBLAS_COMPUTE_32F || how.scale != CUDA_R_32F ||
      (input == CUDA_R_32F && output != CUDA_R_32F)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (how.epilogue == CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_SUCCESS;
  if (how.bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  return how.bias_type == -1 || how.bias_type == (int32_t)output ? CUBLAS_STATUS_SUCCESS
                                                                 : CUBLAS_STATUS_NOT_SUPPORTED;
}

uint32_t form_of(const Product &product) {
  const Operation &how = product.operation;
  return (uint32_t)product.a.type | (uint32_t)product.d.type << 8 | (uint32_t)how.transposed_a << 16 |
         (uint32_t)how.transposed_b << 17 | how.epilogue << 24;
}

bool refuses(const Product &product, const Preference &preference) {
  const char *setting = getenv("EMULATED_BLAS");
  if (setting != nullptr && strcmp(setting, "refuse") == 0) return true;
  if (product.a.type == CUDA_R_32F) return false;
  const Layout *layouts[] = {&product.a, &product.b, &product.c, &product.d};
  for (int i = 0; i < 4; i++) {
    const size_t column_bytes = (size_t)layouts[i]->leading * element_bytes(layouts[i]->type);
    if (column_bytes % COLUMN_ALIGNMENT != 0 || preference.alignments[i] < COLUMN_ALIGNMENT) return true;
  }
  return false;
}

/* op(X) as floats, `outer` vectors of k. */
std::vector<float> gather(const void *x, const Layout &layout, bool k_along_rows, uint64_t outer,
                          uint64_t k) {
  std::vector<float> values(outer * k);
  const int64_t step = k_along_rows ? 1 : layout.leading;
  const int64_t next = k_along_rows ? layout.leading : 1;
  for (uint64_t i = 0; i < outer; i++) {
    for (uint64_t l = 0; l < k; l++) {
      values[i * k + l] = element(x, layout.type, (int64_t)i * next + (int64_t)l * step);
    }
  }
  return values;
}

float dot(const float *a, const float *b, uint64_t k, bool backwards) {
  float sum = 0;
  const uint64_t steps = (k + STEP - 1) / STEP;
  for (uint64_t step = 0; step < steps; step++) {
    const uint64_t first = (backwards ? steps - 1 - step : step) * STEP;
    const uint64_t end = std::min<uint64_t>(first + STEP, k);
    double part = 0;
    for (uint64_t l = first; l < end; l++) part += (double)a[l] * (double)b[l];
    sum += (float)part;
  }
  return sum;
}

struct Operands {
  float alpha, beta;
  const void *a, *b, *c;
  void *d;
  void *workspace;
  size_t workspace_bytes;
};

/* The work itself, when the stream comes to it. C is not read where beta is 0. */
void multiply(const Product &product, const Operands &at, bool backwards) {
  if (at.workspace != nullptr)
    memset(at.workspace, 0xFF, std::min<size_t>(at.workspace_bytes, WORKSPACE_BYTES));
  const bool a_turned = product.operation.transposed_a == CUBLAS_OP_T;
  const bool b_turned = product.operation.transposed_b == CUBLAS_OP_T;
  const std::vector<float> a = gather(at.a, product.a, a_turned, product.m, product.k);
  const std::vector<float> b = gather(at.b, product.b, !b_turned, product.n, product.k);
  const bool bias = product.operation.epilogue == CUBLASLT_EPILOGUE_BIAS;
  for (uint64_t j = 0; j < product.n; j++) {
    for (uint64_t i = 0; i < product.m; i++) {
      const int64_t place = (int64_t)j * product.d.leading + (int64_t)i;
      float value = at.alpha * dot(&a[i * product.k], &b[j * product.k], product.k, backwards);
      if (at.beta != 0) value += at.beta * element(at.c, product.c.type, place);
      if (bias) value += element(product.operation.bias, product.d.type, (int64_t)i);
      if (product.d.type == CUDA_R_32F) {
        ((float *)at.d)[place] = value;
      } else {
        ((__nv_bfloat16 *)at.d)[place] = __float2bfloat16_rn(value);
      }
    }
  }
}

template <typename T> cublasStatus_t assign(T *to, const void *value, size_t bytes) {
  if (value == nullptr || bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy((void *)to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

} // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasLtContext{device};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS:
    return "success";
  case CUBLAS_STATUS_NOT_INITIALIZED:
    return "the library was not initialized";
  case CUBLAS_STATUS_ALLOC_FAILED:
    return "the resource allocation failed";
  case CUBLAS_STATUS_INVALID_VALUE:
    return "an unsupported value or parameter was passed to the function";
  case CUBLAS_STATUS_NOT_SUPPORTED:
    return "the functionality requested is not supported";
  default:
    return "the library failed";
  }
}

size_t cublasLtGetVersion(void) {
  return 0;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, uint64_t rows,
                                        uint64_t columns, int64_t leading) {
  wrap(Layout{type, rows, columns, leading}, layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t operation, cublasComputeType_t compute,
                                      cudaDataType_t scale) {
  wrap(Operation{compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, -1, nullptr},
       operation);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute, const void *value,
                                              size_t bytes) {
  Operation how = unwrap<Operation>(operation);
  cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
  case CUBLASLT_MATMUL_DESC_TRANSA:
    status = assign(&how.transposed_a, value, bytes);
    break;
  case CUBLASLT_MATMUL_DESC_TRANSB:
    status = assign(&how.transposed_b, value, bytes);
    break;
  case CUBLASLT_MATMUL_DESC_EPILOGUE:
    status = assign(&how.epilogue, value, bytes);
    break;
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    status = assign(&how.bias, value, bytes);
    break;
  case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
    status = assign(&how.bias_type, value, bytes);
    break;
  }
  wrap(how, operation);
  return status;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  wrap(Preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}}, preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
  Preference wish = unwrap<Preference>(preference);
  cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
    status = assign(&wish.workspace_bytes, value, bytes);
    break;
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    status = assign(&wish.schemes, value, bytes);
    break;
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
    status = assign(&wish.alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    break;
  }
  wrap(wish, preference);
  return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
  Product product;
  *found = 0;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const cublasStatus_t status = read_product(operation, a, b, c, d, &product);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const Preference wish = unwrap<Preference>(preference);
  if (refuses(product, wish)) return CUBLAS_STATUS_NOT_SUPPORTED;
  Choice choice = {product.m, product.n, product.k, {}, wish.schemes, form_of(product)};
  memcpy(choice.alignments, wish.alignments, sizeof choice.alignments);
  *results = {};
  wrap(choice, &results->algo);
  results->workspaceSize = std::min(wish.workspace_bytes, WORKSPACE_BYTES);
  results->state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  static std::atomic<unsigned> calls;
  Product product;
  int device = -1;
  if (handle == nullptr || cudaGetDevice(&device) != cudaSuccess || device != handle->device) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  const cublasStatus_t status = read_product(operation, a_layout, b_layout, c_layout, d_layout, &product);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (algorithm == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const Choice choice = unwrap<Choice>(algorithm);
  const void *const pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; i++) {
    if ((uintptr_t)pointers[i] % choice.alignments[i] != 0) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (choice.m != product.m || choice.n != product.n || choice.k != product.k ||
      choice.form != form_of(product)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const uint32_t loose = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const bool backwards = (choice.schemes & loose) != 0 && calls++ % 2 != 0;
  const Operands operands = {*(const float *)alpha, *(const float *)beta, a, b, c, d, workspace,
                             workspace_bytes};
  const cudaError_t queued =
      emulator::enqueue(stream, [product, operands, backwards] { multiply(product, operands, backwards); });
  return queued == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
