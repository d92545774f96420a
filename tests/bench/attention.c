/* Attention forward and backward. Floating-point operations: a query at position i that sees the keys from
 * first_key[i] on counts 4 D (i - first_key[i] + 1/2) per head, which is 2 T^2 D for a causal mask; backward
 * counts 2.5 times as many. Packing is timed with both. */
#include <math.h>
#include <stdlib.h>

#include "tests/bench/memory.h"

typedef enum Mask { MASK_CAUSAL, MASK_DOCUMENTS, MASK_WINDOW } Mask;

/* Documents and windows are an eighth of the sequence long. */
static const char *const mask_names[] = {"causal", "documents T/8", "window T/8"};

/* The sequence as one run of tokens, or in this many, which meet block by block as on a ring of half as many
 * ranks. */
enum { RUNS = 8 };

typedef struct Shape {
  BenchTypes types;
  int64_t heads, kv_heads, head_dim;
  int64_t tokens;
  Mask mask;
  bool in_runs;
  bool alone; /* also on one thread alone */
} Shape;

/* Long ones come last: what the time of the part does not reach is left out. */
static const Shape cuda_shapes[] = {
    {BF16, 16, 16, 64, 1024, .mask = MASK_CAUSAL},   {BF16, 16, 16, 64, 4096, .mask = MASK_CAUSAL},
    {BF16, 16, 16, 64, 16384, .mask = MASK_CAUSAL},  {BF16, 8, 8, 128, 1024, .mask = MASK_CAUSAL},
    {BF16, 8, 8, 128, 4096, .mask = MASK_CAUSAL},    {BF16, 8, 8, 128, 16384, .mask = MASK_CAUSAL},
    {BF16, 32, 8, 128, 8192, .mask = MASK_CAUSAL},   {BF16, 16, 16, 64, 16384, .mask = MASK_DOCUMENTS},
    {BF16, 16, 16, 64, 16384, .mask = MASK_WINDOW},  {BF16, 8, 8, 128, 16384, .mask = MASK_DOCUMENTS},
    {BF16, 8, 8, 128, 16384, .mask = MASK_WINDOW},   {F32, 16, 16, 64, 1024, .mask = MASK_CAUSAL},
    {F32, 16, 16, 64, 4096, .mask = MASK_CAUSAL},    {F32, 16, 16, 64, 16384, .mask = MASK_CAUSAL},
    {F32, 8, 8, 128, 4096, .mask = MASK_CAUSAL},     {F32, 8, 8, 128, 16384, .mask = MASK_CAUSAL},
    {F32, 16, 16, 64, 16384, .mask = MASK_WINDOW},   {BF16, 16, 16, 64, 131072, .mask = MASK_DOCUMENTS},
    {BF16, 16, 16, 64, 131072, .mask = MASK_WINDOW}, {BF16, 16, 16, 64, 131072, .mask = MASK_CAUSAL},
    {BF16, 8, 8, 128, 131072, .mask = MASK_CAUSAL},
};

static const Shape cpu_shapes[] = {
    {BOTH, 12, 12, 64, 512, .mask = MASK_CAUSAL},
    {BOTH, 12, 12, 64, 1024, .mask = MASK_CAUSAL},
    {BOTH, 12, 12, 64, 2048, .mask = MASK_CAUSAL},
    {BOTH, 12, 12, 64, 4096, .mask = MASK_CAUSAL},
    {BOTH, 6, 6, 128, 512, .mask = MASK_CAUSAL},
    {BOTH, 6, 6, 128, 1024, .mask = MASK_CAUSAL},
    {BOTH, 6, 6, 128, 4096, .mask = MASK_CAUSAL},
    {BOTH, 4, 4, 64, 8192, .mask = MASK_CAUSAL},
    {BOTH, 4, 4, 128, 8192, .mask = MASK_CAUSAL},
    {BOTH, 8, 2, 64, 8192, .mask = MASK_CAUSAL},
    {BOTH, 4, 4, 64, 8192, .mask = MASK_DOCUMENTS},
    {BOTH, 4, 4, 64, 8192, .mask = MASK_WINDOW},
    {BOTH, 4, 4, 128, 8192, .mask = MASK_DOCUMENTS},
    {BOTH, 4, 4, 128, 8192, .mask = MASK_WINDOW},
    {BOTH, 1, 1, 64, 8192, .mask = MASK_CAUSAL, .alone = true},
    {BOTH, 1, 1, 128, 8192, .mask = MASK_CAUSAL, .alone = true},
    {BOTH, 2, 2, 64, 32768, .mask = MASK_CAUSAL},
    {BOTH, 2, 2, 64, 32768, .mask = MASK_CAUSAL, .in_runs = true},
    {BOTH, 1, 1, 128, 32768, .mask = MASK_CAUSAL},
    {BOTH, 1, 1, 64, 65536, .mask = MASK_CAUSAL},
};

static const Shape quick_shapes[] = {
    {BF16, 2, 2, 64, 100, .mask = MASK_CAUSAL},
    {BF16, 2, 1, 128, 100, .mask = MASK_DOCUMENTS},
    {BF16, 1, 1, 64, 100, .mask = MASK_WINDOW},
    {F32, 2, 1, 64, 100, .mask = MASK_CAUSAL},
    {F32, 1, 1, 128, 70, .mask = MASK_WINDOW},
    {F32, 2, 2, 64, 128, .mask = MASK_CAUSAL, .in_runs = true, .alone = true},
};

typedef struct Attention {
  AttentionDims dims;
  AttentionDims group; /* the heads that are computed at a time, as model/ring_attention.h has it */
  int64_t tokens;
  int64_t *first_key; /* (T) */
  elem *q, *dout;     /* (T, H, D) */
  elem *k, *v;        /* (T, KV, D) */
  elem *out, *dq;     /* as q */
  elem *dk, *dv;      /* as k */
  float *lse;         /* (runs, H, run) */
  int64_t runs, run;  /* T = runs x run */
  char *kv, *dkv;     /* of a group, one run behind the other */
  size_t kv_bytes, dkv_bytes, elem_size;
  void *state; /* of one run of queries */
} Attention;

/* Where the heads from `head` on begin in a row of x (T, heads, D). */
static elem *at(const Attention *a, elem *x, int64_t row, int64_t heads, int64_t head) {
  return (char *)x + (size_t)((row * heads + head) * a->dims.head_dim) * a->elem_size;
}

/* Packs the keys of the key heads from `head` on that are computed at a time. */
static void pack(Device *device, const Attention *a, int64_t head) {
  const int64_t kv_heads = a->dims.kv_heads;
  for (int64_t i = 0; i < a->runs; i++) {
    device->ops.attention.pack_kv(device, &a->group, a->run, at(a, a->k, i * a->run, kv_heads, head),
                                  at(a, a->v, i * a->run, kv_heads, head), kv_heads * a->dims.head_dim,
                                  a->kv + (size_t)i * a->kv_bytes);
  }
}

static void forward_heads(Device *device, const Attention *a, int64_t kv_head) {
  const AttentionOps *ops = &device->ops.attention;
  const int64_t heads = a->dims.heads;
  const int64_t head = kv_head * (heads / a->dims.kv_heads);
  const int64_t row = heads * a->dims.head_dim;
  pack(device, a, kv_head);
  for (int64_t i = 0; i < a->runs; i++) {
    const int64_t start = i * a->run;
    ops->forward_begin(device, &a->group, a->run, at(a, a->q, start, heads, head), row, a->state);
    for (int64_t j = i; j >= 0; j--) {
      ops->forward_block(device, &a->group, a->run, start, a->first_key + start, a->state, a->run, j * a->run,
                         a->kv + (size_t)j * a->kv_bytes);
    }
    ops->forward_end(device, &a->group, a->run, a->state, at(a, a->out, start, heads, head), row,
                     a->lse + start * heads + head * a->run);
  }
}

/* The heads from a key head on as one sequence, as a ring of one has it. */
static AttentionSequence whole_sequence(const Attention *a, int64_t kv_head) {
  const int64_t heads = a->dims.heads;
  const int64_t kv_heads = a->dims.kv_heads;
  return (AttentionSequence){.length = a->tokens,
                             .first_key = a->first_key,
                             .q = at(a, a->q, 0, heads, kv_head * (heads / kv_heads)),
                             .k = at(a, a->k, 0, kv_heads, kv_head),
                             .v = at(a, a->v, 0, kv_heads, kv_head),
                             .q_stride = heads * a->dims.head_dim,
                             .kv_stride = kv_heads * a->dims.head_dim,
                             .out_stride = heads * a->dims.head_dim,
                             .kv = a->kv};
}

static void forward_alone(Device *device, const Attention *a, int64_t kv_head) {
  const int64_t head = kv_head * (a->dims.heads / a->dims.kv_heads);
  const AttentionSequence sequence = whole_sequence(a, kv_head);
  device->ops.attention.forward_alone(device, &a->group, &sequence, at(a, a->out, 0, a->dims.heads, head),
                                      a->lse + head * a->tokens);
}

static void backward_alone(Device *device, const Attention *a, int64_t kv_head) {
  const int64_t heads = a->dims.heads;
  const int64_t kv_heads = a->dims.kv_heads;
  const int64_t head = kv_head * (heads / kv_heads);
  const AttentionSequence sequence = whole_sequence(a, kv_head);
  const AttentionGradients gradients = {.out = at(a, a->out, 0, heads, head),
                                        .lse = a->lse + head * a->tokens,
                                        .dout = at(a, a->dout, 0, heads, head),
                                        .state = a->state,
                                        .dkv = a->dkv,
                                        .dq = at(a, a->dq, 0, heads, head),
                                        .dk = at(a, a->dk, 0, kv_heads, kv_head),
                                        .dv = at(a, a->dv, 0, kv_heads, kv_head)};
  device->ops.attention.backward_alone(device, &a->group, &sequence, &gradients);
}

/* Whether the device computes the sequence at once, as it does on a ring of one. */
static bool is_alone(const Device *device, const Attention *a) {
  return a->runs == 1 && device->ops.attention.forward_alone != NULL;
}

static void forward(Device *device, void *context) {
  const Attention *a = context;
  for (int64_t h = 0; h < a->dims.kv_heads; h += a->group.kv_heads) {
    if (is_alone(device, a)) {
      forward_alone(device, a, h);
    } else {
      forward_heads(device, a, h);
    }
  }
}

static void backward_heads(Device *device, const Attention *a, int64_t kv_head) {
  const AttentionOps *ops = &device->ops.attention;
  const int64_t heads = a->dims.heads;
  const int64_t kv_heads = a->dims.kv_heads;
  const int64_t head = kv_head * (heads / kv_heads);
  const int64_t row = heads * a->dims.head_dim;
  pack(device, a, kv_head);
  device_zero(device, a->dkv, (size_t)a->runs * a->dkv_bytes);
  for (int64_t i = 0; i < a->runs; i++) {
    const int64_t start = i * a->run;
    ops->backward_begin(device, &a->group, a->run, at(a, a->q, start, heads, head), row,
                        at(a, a->out, start, heads, head), at(a, a->dout, start, heads, head), row,
                        a->lse + start * heads + head * a->run, a->state);
    for (int64_t j = i; j >= 0; j--) {
      ops->backward_block(device, &a->group, a->run, start, a->first_key + start, a->state, a->run,
                          j * a->run, a->kv + (size_t)j * a->kv_bytes, a->dkv + (size_t)j * a->dkv_bytes);
    }
    ops->backward_end(device, &a->group, a->run, a->state, at(a, a->dq, start, heads, head), row);
  }
  for (int64_t j = 0; j < a->runs; j++) {
    ops->unpack_dkv(device, &a->group, a->run, a->dkv + (size_t)j * a->dkv_bytes,
                    at(a, a->dk, j * a->run, kv_heads, kv_head), at(a, a->dv, j * a->run, kv_heads, kv_head),
                    kv_heads * a->dims.head_dim);
  }
}

static void backward(Device *device, void *context) {
  const Attention *a = context;
  for (int64_t h = 0; h < a->dims.kv_heads; h += a->group.kv_heads) {
    if (is_alone(device, a)) {
      backward_alone(device, a, h);
    } else {
      backward_heads(device, a, h);
    }
  }
}

static int64_t first_key_of(const Shape *shape, int64_t i) {
  const int64_t part = shape->tokens / 8;
  if (shape->mask == MASK_DOCUMENTS) return i / part * part;
  if (shape->mask == MASK_WINDOW) return i < part ? 0 : i - part + 1;
  return 0;
}

/* Fills first_key; returns the floating-point operations of forward. */
static double write_mask(Bench *bench, const Shape *shape, ElementType type, int64_t *first_key) {
  int64_t *host = malloc((size_t)shape->tokens * sizeof *host);
  double seen = 0;
  for (int64_t i = 0; host != NULL && i < shape->tokens; i++) {
    host[i] = first_key_of(shape, i);
    seen += (double)(i - host[i]) + 0.5;
  }
  if (host != NULL) {
    device_write(bench->devices[type], first_key, host, (size_t)shape->tokens * sizeof *host);
  } else {
    (void)fail(&bench->error, STATUS_SYSTEM, "the machine has no memory left");
  }
  free(host);
  return 4 * seen * (double)(shape->head_dim * shape->heads);
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static void take_memory(Bench *bench, const Shape *shape, ElementType type, Attention *a) {
  const AttentionOps *ops = &bench->devices[type]->ops.attention;
  const int64_t count = shape->tokens * shape->heads * shape->head_dim;
  const int64_t kv_count = shape->tokens * shape->kv_heads * shape->head_dim;
  *a = (Attention){.dims = {.heads = shape->heads,
                            .kv_heads = shape->kv_heads,
                            .head_dim = shape->head_dim,
                            .scale = 1.0F / sqrtf((float)shape->head_dim)},
                   .tokens = shape->tokens,
                   .runs = shape->in_runs ? RUNS : 1,
                   .elem_size = bench->devices[type]->ops.elem_size};
  a->run = a->tokens / a->runs;
  a->group = a->dims;
  if (a->runs == 1) a->group.kv_heads = ops->heads_at_once(&a->dims, a->run);
  a->group.heads = a->dims.heads / a->dims.kv_heads * a->group.kv_heads;
  a->first_key = bench_zeros(bench, type, (size_t)shape->tokens * sizeof(int64_t));
  a->q = bench_elements(bench, type, count);
  a->dout = bench_elements(bench, type, count);
  a->k = bench_elements(bench, type, kv_count);
  a->v = bench_elements(bench, type, kv_count);
  a->out = bench_elements(bench, type, count);
  a->dq = bench_elements(bench, type, count);
  a->dk = bench_elements(bench, type, kv_count);
  a->dv = bench_elements(bench, type, kv_count);
  a->lse = bench_floats(bench, type, shape->tokens * shape->heads);
  a->kv_bytes = ops->kv_bytes(&a->group, a->run);
  a->dkv_bytes = ops->dkv_bytes(&a->group, a->run);
  a->kv = bench_zeros(bench, type, (size_t)a->runs * a->kv_bytes);
  a->dkv = bench_zeros(bench, type, (size_t)a->runs * a->dkv_bytes);
  a->state = bench_zeros(
      bench, type, larger(ops->forward_bytes(&a->group, a->run), ops->backward_bytes(&a->group, a->run)));
}

static bool begin(Bench *bench, Case *c, const char *pass, const Shape *shape, ElementType type, bool alone) {
  const bool good =
      bench_begin(bench, c, type, bench_limit(type), "%s %s D %lld H %lld/%lld T %lld %s%s%s", pass,
                  bench_type_name(type), (long long)shape->head_dim, (long long)shape->heads,
                  (long long)shape->kv_heads, (long long)shape->tokens, mask_names[shape->mask],
                  shape->in_runs ? " in runs of T/8" : "", alone ? " 1 thread" : "");
  c->alone = alone;
  return good;
}

/* Both passes, backward behind forward, whose output it reads. */
static void measure_passes(Bench *bench, const Shape *shape, ElementType type, bool alone, double work,
                           Attention *a) {
  Case c;
  if (begin(bench, &c, "forward", shape, type, alone)) {
    c.work = work;
    bench_measure(bench, &c, forward, a);
  }
  if (begin(bench, &c, "backward", shape, type, alone)) {
    c.work = 2.5 * work;
    bench_measure(bench, &c, backward, a);
  }
}

static void measure(Bench *bench, const Shape *shape, ElementType type) {
  double work = 0;
  Case c[2];
  Attention a;
  const bool forwards = begin(bench, &c[0], "forward", shape, type, false);
  const bool backwards = begin(bench, &c[1], "backward", shape, type, false);
  if (!forwards && !backwards) return;
  take_memory(bench, shape, type, &a);
  if (bench->error.status == STATUS_OK) work = write_mask(bench, shape, type, a.first_key);
  if (shape->alone && bench->alone[type] != NULL) measure_passes(bench, shape, type, true, work, &a);
  measure_passes(bench, shape, type, false, work, &a);
  bench_release(bench);
}

/* The shapes for what is measured. */
static const Shape *shapes_of(const Bench *bench, size_t *count) {
  *count = sizeof cpu_shapes / sizeof cpu_shapes[0];
  if (bench->cuda) *count = sizeof cuda_shapes / sizeof cuda_shapes[0];
  if (bench->quick) *count = sizeof quick_shapes / sizeof quick_shapes[0];
  if (bench->quick) return quick_shapes;
  return bench->cuda ? cuda_shapes : cpu_shapes;
}

void bench_attention(Bench *bench) {
  size_t count = 0;
  const Shape *shapes = shapes_of(bench, &count);
  for (size_t i = 0; i < count; i++) {
    if ((shapes[i].types & F32) != 0) measure(bench, &shapes[i], ELEMENT_F32);
    if ((shapes[i].types & BF16) != 0) measure(bench, &shapes[i], ELEMENT_BF16);
  }
}
