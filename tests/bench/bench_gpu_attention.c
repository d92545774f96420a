/* Attention forward and backward, in one run of all tokens. Floating-point operations: a query at position i
 * that sees the keys from first_key[i] on counts 4 D (i - first_key[i] + 1/2) per head, which is 2 T^2 D for
 * a causal mask; backward counts 2.5 times as many. Packing is timed with forward, the start and the
 * unpacking of key gradients with backward. */
#include <math.h>
#include <stdlib.h>

#include "tests/bench/bench_gpu_measure.h"

typedef enum Mask { MASK_CAUSAL, MASK_DOCUMENTS, MASK_WINDOW } Mask;

/* Documents and windows are an eighth of the sequence long. */
static const char *const mask_names[] = {"causal", "documents T/8", "window T/8"};

typedef struct Shape {
  ElementType type;
  int64_t heads, kv_heads, head_dim;
  int64_t tokens;
  Mask mask;
} Shape;

static const Shape shapes[] = {
    {ELEMENT_BF16, 16, 16, 64, 1024, MASK_CAUSAL},   {ELEMENT_BF16, 16, 16, 64, 4096, MASK_CAUSAL},
    {ELEMENT_BF16, 16, 16, 64, 16384, MASK_CAUSAL},  {ELEMENT_BF16, 8, 8, 128, 1024, MASK_CAUSAL},
    {ELEMENT_BF16, 8, 8, 128, 4096, MASK_CAUSAL},    {ELEMENT_BF16, 8, 8, 128, 16384, MASK_CAUSAL},
    {ELEMENT_BF16, 32, 8, 128, 8192, MASK_CAUSAL},   {ELEMENT_BF16, 16, 16, 64, 16384, MASK_DOCUMENTS},
    {ELEMENT_BF16, 16, 16, 64, 16384, MASK_WINDOW},  {ELEMENT_BF16, 8, 8, 128, 16384, MASK_DOCUMENTS},
    {ELEMENT_BF16, 8, 8, 128, 16384, MASK_WINDOW},   {ELEMENT_F32, 16, 16, 64, 1024, MASK_CAUSAL},
    {ELEMENT_F32, 16, 16, 64, 4096, MASK_CAUSAL},    {ELEMENT_F32, 16, 16, 64, 16384, MASK_CAUSAL},
    {ELEMENT_F32, 8, 8, 128, 4096, MASK_CAUSAL},     {ELEMENT_F32, 8, 8, 128, 16384, MASK_CAUSAL},
    {ELEMENT_F32, 16, 16, 64, 16384, MASK_WINDOW},   {ELEMENT_BF16, 16, 16, 64, 131072, MASK_DOCUMENTS},
    {ELEMENT_BF16, 16, 16, 64, 131072, MASK_WINDOW}, {ELEMENT_BF16, 16, 16, 64, 131072, MASK_CAUSAL},
    {ELEMENT_BF16, 8, 8, 128, 131072, MASK_CAUSAL},
};

static const Shape quick_shapes[] = {
    {ELEMENT_BF16, 2, 2, 64, 100, MASK_CAUSAL}, {ELEMENT_BF16, 2, 1, 128, 100, MASK_DOCUMENTS},
    {ELEMENT_BF16, 1, 1, 64, 100, MASK_WINDOW}, {ELEMENT_F32, 2, 1, 64, 100, MASK_CAUSAL},
    {ELEMENT_F32, 1, 1, 128, 70, MASK_WINDOW},
};

typedef struct Attention {
  AttentionDims dims;
  int64_t tokens;
  int64_t *first_key; /* (T) */
  elem *q, *dout;     /* (T, H, D) */
  elem *k, *v;        /* (T, KV, D) */
  elem *out, *dq;     /* as q */
  elem *dk, *dv;      /* as k */
  float *lse;         /* (H, T) */
  void *kv, *dkv;
  size_t dkv_bytes;
  void *state;
} Attention;

static void forward(Device *device, void *context) {
  const Attention *a = context;
  const AttentionOps *ops = &device->ops.attention;
  const int64_t row = a->dims.heads * a->dims.head_dim;
  const int64_t kv_row = a->dims.kv_heads * a->dims.head_dim;
  ops->pack_kv(device, &a->dims, a->tokens, a->k, a->v, kv_row, a->kv);
  ops->forward_begin(device, &a->dims, a->tokens, a->q, row, a->state);
  ops->forward_block(device, &a->dims, a->tokens, 0, a->first_key, a->state, a->tokens, 0, a->kv);
  ops->forward_end(device, &a->dims, a->tokens, a->state, a->out, a->lse);
}

static void backward(Device *device, void *context) {
  const Attention *a = context;
  const AttentionOps *ops = &device->ops.attention;
  const int64_t row = a->dims.heads * a->dims.head_dim;
  const int64_t kv_row = a->dims.kv_heads * a->dims.head_dim;
  device_zero(device, a->dkv, a->dkv_bytes);
  ops->backward_begin(device, &a->dims, a->tokens, a->q, row, a->out, a->dout, a->lse, a->state);
  ops->backward_block(device, &a->dims, a->tokens, 0, a->first_key, a->state, a->tokens, 0, a->kv, a->dkv);
  ops->backward_end(device, &a->dims, a->tokens, a->state, a->dq, row);
  ops->unpack_dkv(device, &a->dims, a->tokens, a->dkv, a->dk, a->dv, kv_row);
}

static int64_t first_key_of(const Shape *shape, int64_t i) {
  const int64_t part = shape->tokens / 8;
  if (shape->mask == MASK_DOCUMENTS) return i / part * part;
  if (shape->mask == MASK_WINDOW) return i < part ? 0 : i - part + 1;
  return 0;
}

/* Fills first_key; returns the floating-point operations of forward. */
static double write_mask(GpuBench *bench, const Shape *shape, int64_t *first_key) {
  int64_t *host = malloc((size_t)shape->tokens * sizeof *host);
  double seen = 0;
  for (int64_t i = 0; host != NULL && i < shape->tokens; i++) {
    host[i] = first_key_of(shape, i);
    seen += (double)(i - host[i]) + 0.5;
  }
  if (host != NULL) {
    device_write(bench->devices[shape->type], first_key, host, (size_t)shape->tokens * sizeof *host);
  } else {
    (void)fail(&bench->error, STATUS_SYSTEM, "the machine has no memory left");
  }
  free(host);
  return 4 * seen * (double)(shape->head_dim * shape->heads);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static void take_memory(GpuBench *bench, const Shape *shape, Attention *a) {
  const AttentionOps *ops = &bench->devices[shape->type]->ops.attention;
  const int64_t count = shape->tokens * shape->heads * shape->head_dim;
  const int64_t kv_count = shape->tokens * shape->kv_heads * shape->head_dim;
  const ElementType type = shape->type;
  *a = (Attention){.dims = {.heads = shape->heads,
                            .kv_heads = shape->kv_heads,
                            .head_dim = shape->head_dim,
                            .scale = 1.0F / sqrtf((float)shape->head_dim)},
                   .tokens = shape->tokens};
  a->first_key = gpu_zeros(bench, type, (size_t)shape->tokens * sizeof(int64_t));
  a->q = gpu_elements(bench, type, count);
  a->dout = gpu_elements(bench, type, count);
  a->k = gpu_elements(bench, type, kv_count);
  a->v = gpu_elements(bench, type, kv_count);
  a->out = gpu_elements(bench, type, count);
  a->dq = gpu_elements(bench, type, count);
  a->dk = gpu_elements(bench, type, kv_count);
  a->dv = gpu_elements(bench, type, kv_count);
  a->lse = gpu_floats(bench, type, shape->tokens * shape->heads);
  a->kv = gpu_zeros(bench, type, ops->kv_bytes(&a->dims, a->tokens));
  a->dkv_bytes = ops->dkv_bytes(&a->dims, a->tokens);
  a->dkv = gpu_zeros(bench, type, a->dkv_bytes);
  a->state = gpu_zeros(
      bench, type, larger(ops->forward_bytes(&a->dims, a->tokens), ops->backward_bytes(&a->dims, a->tokens)));
}

static bool begin(GpuBench *bench, GpuCase *c, const char *pass, const Shape *shape) {
  return gpu_begin(bench, c, shape->type, gpu_product_limit(shape->type),
                   "%s %s D %lld H %lld/%lld T %lld %s", pass, gpu_type_name(shape->type),
                   (long long)shape->head_dim, (long long)shape->heads, (long long)shape->kv_heads,
                   (long long)shape->tokens, mask_names[shape->mask]);
}

static void measure(GpuBench *bench, const Shape *shape) {
  GpuCase forward_case;
  GpuCase backward_case;
  Attention a;
  if (!begin(bench, &forward_case, "forward", shape)) return;
  take_memory(bench, shape, &a);
  if (bench->error.status == STATUS_OK) forward_case.work = write_mask(bench, shape, a.first_key);
  gpu_measure(bench, &forward_case, forward, &a);
  if (begin(bench, &backward_case, "backward", shape)) {
    backward_case.work = 2.5 * forward_case.work;
    gpu_measure(bench, &backward_case, backward, &a);
  }
  gpu_release(bench);
}

void gpu_bench_attention(GpuBench *bench) {
  const Shape *list = bench->quick ? quick_shapes : shapes;
  const size_t count =
      bench->quick ? sizeof quick_shapes / sizeof quick_shapes[0] : sizeof shapes / sizeof shapes[0];
  for (size_t i = 0; i < count; i++) measure(bench, &list[i]);
}
