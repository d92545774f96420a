/* Operations that memory limits, as bytes a second: every array counts once for each time that the
 * operation's definition (kernels/ops.h) reads or writes it; what is per row or per column alone does not
 * count. */
#include "tests/bench/memory.h"

enum { HEAD_DIM = 64 };

/* What all operations work on: `n` rows of `c` elements, n c = `count`. */
typedef struct Rows {
  int64_t n, c, count;
  elem *x, *y, *dy, *dx;       /* (n, c) */
  elem *weight, *bias;         /* (c) */
  float *mean, *rstd;          /* (n) */
  float *dweight, *dbias;      /* (c) */
  int32_t *targets;            /* (n), zeros */
  float *nll;                  /* (n) */
  int64_t *numbers;            /* (n), zeros */
  float *table;                /* (n, HEAD_DIM) */
  float *gradient, *m, *v, *w; /* (count) */
  double *sum;
  int64_t step; /* of AdamW */
} Rows;

static void layernorm_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.layernorm_forward(d, r->n, r->c, 1e-5F, NULL, r->x, r->weight, r->bias, r->y, r->mean, r->rstd);
}

/* x grows from call to call, and stays far from overflow. */
static void add_layernorm_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.layernorm_forward(d, r->n, r->c, 1e-5F, r->dy, r->x, r->weight, r->bias, r->y, r->mean, r->rstd);
}

static void layernorm_backward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.layernorm_backward(d, r->n, r->c, r->dy, r->x, r->weight, r->mean, r->rstd, r->dx, r->dweight,
                            r->dbias);
}

static void rmsnorm_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.rmsnorm_forward(d, r->n, r->c, 1e-5F, NULL, r->x, r->weight, r->y, r->rstd);
}

static void add_rmsnorm_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.rmsnorm_forward(d, r->n, r->c, 1e-5F, r->dy, r->x, r->weight, r->y, r->rstd);
}

static void rmsnorm_backward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.rmsnorm_backward(d, r->n, r->c, r->dy, r->x, r->weight, r->rstd, r->dx, r->dweight);
}

static void rope(Device *d, void *context) {
  const Rows *r = context;
  d->ops.rope_apply(d, r->n, r->c / HEAD_DIM, HEAD_DIM, r->c, r->table, false, r->y);
}

static void gelu_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.gelu_forward(d, r->count, r->x, r->y);
}

static void gelu_backward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.gelu_backward(d, r->count, r->x, r->dy, r->y);
}

/* The rows hold gate and up. */
static void swiglu_forward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.swiglu_forward(d, r->n, r->c / 2, r->x, r->y);
}

static void swiglu_backward(Device *d, void *context) {
  const Rows *r = context;
  d->ops.swiglu_backward(d, r->n, r->c / 2, r->x, r->dy, r->y);
}

static void dropout(Device *d, void *context) {
  const Rows *r = context;
  const DropoutKey key = {.seed = 1, .stream = 2, .threshold = 429496730, .scale = 1.0F / 0.9F};
  d->ops.dropout(d, r->n, r->c, &key, r->numbers, r->x, r->y);
}

static void add_f32(Device *d, void *context) {
  const Rows *r = context;
  d->ops.add_f32(d, r->count, r->gradient, r->w);
}

static void from_floats(Device *d, void *context) {
  const Rows *r = context;
  d->ops.from_floats(d, r->count, r->w, r->y);
}

static void cross_entropy(Device *d, void *context) {
  const Rows *r = context;
  d->ops.cross_entropy(d, r->n, r->c, r->c, r->y, r->targets, false, r->nll);
}

static void cross_entropy_gradient(Device *d, void *context) {
  const Rows *r = context;
  d->ops.cross_entropy(d, r->n, r->c, r->c, r->y, r->targets, true, r->nll);
}

static void sum_of_squares(Device *d, void *context) {
  const Rows *r = context;
  d->ops.sum_of_squares(d, r->count, r->w, r->sum);
}

static void adamw(Device *d, void *context) {
  Rows *r = context;
  const AdamwStep step = {.learning_rate = 1e-4F,
                          .beta1 = 0.9F,
                          .beta2 = 0.95F,
                          .eps = 1e-8F,
                          .weight_decay = 0.1F,
                          .gradient_scale = 1,
                          .step = ++r->step};
  d->ops.adamw(d, &step, r->count, r->gradient, r->w, r->m, r->v);
}

/* Arrays of elements that one call reads or writes, in halves, and of floats. */
typedef struct Operation {
  const char *name;
  Call *call;
  int halves;
  int floats;
  bool once; /* on floats alone: the same in bf16 */
} Operation;

/* Forward before backward, which reads its statistics. */
static const Operation operations[] = {
    {"layernorm forward", layernorm_forward, 4, 0, false},
    {"residual and layernorm", add_layernorm_forward, 8, 0, false},
    {"layernorm backward", layernorm_backward, 8, 0, false},
    {"rmsnorm forward", rmsnorm_forward, 4, 0, false},
    {"residual and rmsnorm", add_rmsnorm_forward, 8, 0, false},
    {"rmsnorm backward", rmsnorm_backward, 8, 0, false},
    {"rope", rope, 4, 0, false},
    {"gelu forward", gelu_forward, 4, 0, false},
    {"gelu backward", gelu_backward, 6, 0, false},
    {"swiglu forward", swiglu_forward, 3, 0, false},
    {"swiglu backward", swiglu_backward, 5, 0, false},
    {"dropout", dropout, 4, 0, false},
    {"add", add_f32, 0, 3, true},
    {"from floats", from_floats, 2, 1, false},
    {"sum of squares", sum_of_squares, 0, 1, true},
    {"adamw", adamw, 0, 7, true},
};

static const Operation losses[] = {
    {"cross-entropy", cross_entropy, 2, 0, false},
    {"cross-entropy and gradient", cross_entropy_gradient, 4, 0, false},
};

/* Angles of 0: however often they are applied, numbers stay as they are. */
static void take_table(Bench *bench, ElementType type, Rows *r) {
  Device *device = bench->devices[type];
  const double *frequencies = bench_zeros(bench, type, HEAD_DIM / 2 * sizeof *frequencies);
  r->table = bench_zeros(bench, type, (size_t)r->n * HEAD_DIM * sizeof *r->table);
  if (r->table != NULL) device->ops.rope_table(device, r->n, HEAD_DIM, r->numbers, frequencies, r->table);
}

static void take_memory(Bench *bench, ElementType type, Rows *r) {
  r->count = r->n * r->c;
  r->x = bench_elements(bench, type, r->count);
  r->y = bench_elements(bench, type, r->count);
  r->dy = bench_elements(bench, type, r->count);
  r->dx = bench_elements(bench, type, r->count);
  r->weight = bench_elements(bench, type, r->c);
  r->bias = bench_elements(bench, type, r->c);
  r->mean = bench_floats(bench, type, r->n);
  r->rstd = bench_floats(bench, type, r->n);
  r->dweight = bench_floats(bench, type, r->c);
  r->dbias = bench_floats(bench, type, r->c);
  r->numbers = bench_zeros(bench, type, (size_t)r->n * sizeof *r->numbers);
  r->gradient = bench_floats(bench, type, r->count);
  r->w = bench_floats(bench, type, r->count);
  r->m = bench_zeros(bench, type, (size_t)r->count * sizeof(float));
  r->v = bench_zeros(bench, type, (size_t)r->count * sizeof(float));
  r->sum = bench_zeros(bench, type, sizeof *r->sum);
  take_table(bench, type, r);
}

static void take_logits(Bench *bench, ElementType type, Rows *r) {
  r->count = r->n * r->c;
  r->y = bench_elements(bench, type, r->count);
  r->targets = bench_zeros(bench, type, (size_t)r->n * sizeof *r->targets);
  r->nll = bench_floats(bench, type, r->n);
}

static void measure(Bench *bench, ElementType type, const Operation *operation, Rows *r) {
  Case c;
  if (!bench_begin(bench, &c, type, LIMIT_MEMORY, "%s %s %lldx%lld", operation->name,
                   operation->once ? "floats" : bench_type_name(type), (long long)r->n, (long long)r->c)) {
    return;
  }
  const double size = (double)bench->devices[type]->ops.elem_size;
  c.work = (double)r->count * (0.5 * operation->halves * size + 4.0 * operation->floats);
  bench_measure(bench, &c, operation->call, r);
}

/* Sizes of the arrays. */
typedef struct Sizes {
  int64_t n, c;               /* of rows */
  int64_t logits, vocabulary; /* of cross-entropy */
} Sizes;

static const Sizes quick_sizes = {8, 128, 8, 101};
static const Sizes cuda_sizes = {16384, 4096, 4096, 50257};
static const Sizes cpu_sizes = {32768, 768, 1024, 50257};

static void measure_type(Bench *bench, ElementType type, const Sizes *sizes) {
  Rows rows = {.n = sizes->n, .c = sizes->c};
  Rows logits = {.n = sizes->logits, .c = sizes->vocabulary};
  take_memory(bench, type, &rows);
  for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
    if (type == ELEMENT_BF16 && operations[i].once) continue;
    measure(bench, type, &operations[i], &rows);
  }
  bench_release(bench);
  take_logits(bench, type, &logits);
  for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) measure(bench, type, &losses[i], &logits);
  bench_release(bench);
}

void bench_rows(Bench *bench) {
  const Sizes *sizes = bench->cuda ? &cuda_sizes : &cpu_sizes;
  if (bench->quick) sizes = &quick_sizes;
  for (int type = ELEMENT_F32; type <= ELEMENT_BF16; type++) {
    if (bench->devices[type] != NULL) measure_type(bench, (ElementType)type, sizes);
  }
}
