/* Matrix products by cuBLASLt, which counts in columns: c = a b of rows is c^T = b^T a^T of columns, and a
 * matrix of rows read as columns is its own transpose. So b is cuBLASLt's A, a its B, and the bias, one
 * number for each column of c, lies along the rows of its D as its epilogue wants it. */
#include <string.h>

#include "kernels/cuda/products.h"

/* What cuBLASLt knows alignments up to. */
#define ALIGNMENT_MAX 256
/* The widest loads of a kernel. */
#define BIAS_ALIGNMENT 16

/* Returns the status of a failed call. */
#define TRY_BLAS(call)                                                                                       \
  do {                                                                                                       \
    const cublasStatus_t try_status_ = (call);                                                               \
    if (try_status_ != CUBLAS_STATUS_SUCCESS) return try_status_;                                            \
  } while (0)

/* A product in cuBLASLt's words. */
typedef struct BlasProduct {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, d;
} BlasProduct;

/* The largest power of two that divides the address. */
static uint32_t alignment_of(const void *pointer) {
  const uintptr_t address = (uintptr_t)pointer | ALIGNMENT_MAX;
  return (uint32_t)(address & (~address + 1));
}

static CudaPlanKey key_of(const CudaProduct *p, cudaDataType_t input, cudaDataType_t output) {
  CudaPlanKey key;
  memset(&key, 0, sizeof key);
  key.sizes[0] = p->m;
  key.sizes[1] = p->n;
  key.sizes[2] = p->k;
  key.strides[0] = p->a_stride;
  key.strides[1] = p->c_stride;
  key.alignments[0] = alignment_of(p->a);
  key.alignments[1] = alignment_of(p->b);
  key.alignments[2] = alignment_of(p->c);
  key.alignments[3] = alignment_of(p->bias);
  key.types[0] = (int32_t)input;
  key.types[1] = (int32_t)output;
  key.transposed[0] = p->a_transposed;
  key.transposed[1] = p->b_transposed;
  key.add = p->add;
  key.bias = p->bias != NULL;
  return key;
}

/* A matrix of `height` rows of `width` elements as it is stored, `stride` apart, read as columns. */
static cublasStatus_t describe_matrix(cublasLtMatrixLayoutOpaque_t *layout, cudaDataType_t type,
                                      int64_t height, int64_t width, int64_t stride) {
  return cublasLtMatrixLayoutInit(layout, type, (uint64_t)width, (uint64_t)height, stride);
}

static cublasStatus_t set_operation(BlasProduct *blas, cublasLtMatmulDescAttributes_t attribute,
                                    const void *value, size_t bytes) {
  return cublasLtMatmulDescSetAttribute(&blas->operation, attribute, value, bytes);
}

/* CUBLAS_COMPUTE_32F takes floats as they are and never rounds them to TF32. */
static cublasStatus_t describe(const CudaProduct *p, cudaDataType_t input, cudaDataType_t output,
                               BlasProduct *blas) {
  const int32_t a_order = p->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const int32_t b_order = p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  TRY_BLAS(cublasLtMatmulDescInit(&blas->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  TRY_BLAS(set_operation(blas, CUBLASLT_MATMUL_DESC_TRANSA, &a_order, sizeof a_order));
  TRY_BLAS(set_operation(blas, CUBLASLT_MATMUL_DESC_TRANSB, &b_order, sizeof b_order));
  const int64_t b_width = p->b_transposed ? p->k : p->n;
  TRY_BLAS(describe_matrix(&blas->a, input, p->b_transposed ? p->n : p->k, b_width, b_width));
  TRY_BLAS(describe_matrix(&blas->b, input, p->a_transposed ? p->k : p->m, p->a_transposed ? p->m : p->k,
                           p->a_stride));
  TRY_BLAS(describe_matrix(&blas->d, output, p->m, p->n, p->c_stride));
  if (p->bias == NULL) return CUBLAS_STATUS_SUCCESS;
  const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const int32_t bias_type = output;
  TRY_BLAS(set_operation(blas, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
  TRY_BLAS(set_operation(blas, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type));
  return set_operation(blas, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
}

static cublasStatus_t set_preference(cublasLtMatmulPreferenceOpaque_t *preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                     size_t bytes) {
  return cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes);
}

/* Asks for the best algorithm among those that split k and reduce by one of `schemes`, or not at all.
 * CUBLAS_STATUS_NOT_SUPPORTED where there is none. */
static cublasStatus_t choose(const CudaDevice *cuda, BlasProduct *blas, const CudaPlanKey *key,
                             uint32_t schemes, cublasLtMatmulAlgo_t *algorithm) {
  static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES};
  const uint64_t workspace = cuda->workspace_bytes;
  cublasLtMatmulPreferenceOpaque_t wish;
  TRY_BLAS(cublasLtMatmulPreferenceInit(&wish));
  TRY_BLAS(set_preference(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
  TRY_BLAS(set_preference(&wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes));
  for (int i = 0; i < 3; i++) {
    TRY_BLAS(set_preference(&wish, alignments[i], &key->alignments[i], sizeof key->alignments[i]));
  }
  TRY_BLAS(set_preference(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key->alignments[2],
                          sizeof key->alignments[2]));
  cublasLtMatmulHeuristicResult_t result = {};
  int results = 0;
  TRY_BLAS(cublasLtMatmulAlgoGetHeuristic(cuda->blas, &blas->operation, &blas->a, &blas->b, &blas->d,
                                          &blas->d, &wish, 1, &result, &results));
  if (results == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  *algorithm = result.algo;
  return result.state;
}

/* The plan of a product, made where there is none. Only algorithms that add in one order are taken: those
 * that leave k whole, or keep the parts apart in the workspace and add them in a step of their own. Where
 * the library finds none for the two together it is asked for the first kind alone. */
static cublasStatus_t find_plan(CudaDevice *cuda, BlasProduct *blas, const CudaPlanKey *key,
                                const CudaPlan **out) {
  CudaPlans *plans = &cuda->plans;
  for (int64_t i = 0; i < plans->made && i < CUDA_PLANS; i++) {
    *out = &plans->plan[i];
    if (memcmp(&plans->plan[i].key, key, sizeof *key) == 0) return CUBLAS_STATUS_SUCCESS;
  }
  CudaPlan plan = {};
  plan.key = *key;
  /* Nothing tells the library how a bias lies: one that wide loads cannot read is not given to it. */
  const bool readable = !key->bias || key->alignments[3] >= BIAS_ALIGNMENT;
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  if (readable) {
    status = choose(cuda, blas, key, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, &plan.algorithm);
  }
  if (readable && status == CUBLAS_STATUS_NOT_SUPPORTED) {
    status = choose(cuda, blas, key, CUBLASLT_REDUCTION_SCHEME_NONE, &plan.algorithm);
  }
  /* The plain kernel can do what the library calls impossible, in whatever words. */
  plan.refused = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
                 status == CUBLAS_STATUS_ARCH_MISMATCH;
  if (status != CUBLAS_STATUS_SUCCESS && !plan.refused) return status;
  CudaPlan *kept = &plans->plan[plans->made++ % CUDA_PLANS];
  *kept = plan;
  *out = kept;
  return CUBLAS_STATUS_SUCCESS;
}

/* *done: false where cuBLASLt refuses the product. */
static cublasStatus_t multiply(CudaDevice *cuda, const CudaProduct *p, cudaDataType_t input,
                               cudaDataType_t output, bool *done) {
  const CudaPlanKey key = key_of(p, input, output);
  const float alpha = 1.0F;
  const float beta = p->add ? 1.0F : 0.0F;
  const CudaPlan *plan = NULL;
  BlasProduct blas;
  *done = true;
  TRY_BLAS(describe(p, input, output, &blas));
  TRY_BLAS(find_plan(cuda, &blas, &key, &plan));
  *done = !plan->refused;
  if (plan->refused) return CUBLAS_STATUS_SUCCESS;
  return cublasLtMatmul(cuda->blas, &blas.operation, &alpha, p->b, &blas.a, p->a, &blas.b, &beta, p->c,
                        &blas.d, p->c, &blas.d, &plan->algorithm, cuda->workspace, cuda->workspace_bytes,
                        cuda->streams[QUEUE_COMPUTE]);
}

bool cuda_product_blas(Device *device, const CudaProduct *product, cudaDataType_t input,
                       cudaDataType_t output) {
  bool done = false;
  const cublasStatus_t status = multiply(cuda_device(device), product, input, output, &done);
  if (status == CUBLAS_STATUS_SUCCESS) return done;
  const bool memory = status == CUBLAS_STATUS_ALLOC_FAILED;
  device_fail(device, memory ? STATUS_SYSTEM : STATUS_INTERNAL,
              "cuda %d: %s of (%lld, %lld) and (%lld, %lld): cuBLASLt: %s", cuda_device(device)->index,
              product->what, (long long)product->m, (long long)product->k, (long long)product->k,
              (long long)product->n, cublasLtGetStatusString(status));
  return true;
}
