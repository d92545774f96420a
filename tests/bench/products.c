/* Products in the shapes of GPT-2 124M, of a Llama of 160 million parameters and of Llama 3 8B: forward,
 * input gradient, weight gradient. Each is 2 n inputs outputs floating-point operations. */
#include "tests/bench/memory.h"

typedef struct Shape {
  const char *name;
  BenchTypes types;
  int64_t n, inputs, outputs;
  bool bias;
} Shape;

static const Shape cuda_shapes[] = {
    {"GPT-2 qkv", BOTH, 8192, 768, 2304, true},
    {"GPT-2 attention out", BOTH, 8192, 768, 768, true},
    {"GPT-2 MLP up", BOTH, 8192, 768, 3072, true},
    {"GPT-2 MLP down", BOTH, 8192, 3072, 768, true},
    {"GPT-2 head", BOTH, 4096, 768, 50257, false},
    {"Llama 8B qkv", BF16, 8192, 4096, 6144, false},
    {"Llama 8B attention out", BF16, 8192, 4096, 4096, false},
    {"Llama 8B gate and up", BF16, 8192, 4096, 28672, false},
    {"Llama 8B down", BF16, 8192, 14336, 4096, false},
    {"Llama 8B head", BF16, 4096, 4096, 128256, false},
};

static const Shape cpu_shapes[] = {
    {"GPT-2 qkv", BOTH, 1024, 768, 2304, true},
    {"GPT-2 attention out", BOTH, 1024, 768, 768, true},
    {"GPT-2 MLP up", BOTH, 1024, 768, 3072, true},
    {"GPT-2 MLP down", BOTH, 1024, 3072, 768, true},
    {"GPT-2 head", BOTH, 1024, 768, 50257, false},
    {"Llama 160M qkv", BOTH, 4096, 768, 1280, false},
    {"Llama 160M gate and up", BOTH, 4096, 768, 4608, false},
    {"Llama 160M down", BOTH, 4096, 2304, 768, false},
};

static const Shape quick_shapes[] = {
    {"GPT-2 MLP up", BOTH, 16, 48, 64, true},
    {"GPT-2 head", BF16, 16, 48, 101, false},
};

/* From row to row of y, as of the model's logits. */
static int64_t stride_of(const Shape *s) {
  return (s->outputs + 63) / 64 * 64;
}

typedef struct Product {
  Shape shape;
  elem *x, *w, *bias, *y; /* (n, inputs), (outputs, inputs), (outputs) or NULL, (n, outputs) */
  float *dw, *dbias;      /* as w, as bias */
} Product;

static void forward(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_forward(device, s->n, s->inputs, s->outputs, stride_of(s), p->x, p->w, p->bias, p->y);
}

static void input_gradient(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_backward_input(device, s->n, s->inputs, s->outputs, stride_of(s), p->y, p->w, p->x);
}

static void weight_gradient(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_backward_weight(device, s->n, s->inputs, s->outputs, stride_of(s), p->y, p->x, p->dw,
                                     p->dbias);
}

static void take_memory(Bench *bench, const Shape *shape, ElementType type, Product *p) {
  p->x = bench_elements(bench, type, shape->n * shape->inputs);
  p->w = bench_elements(bench, type, shape->outputs * shape->inputs);
  p->y = bench_elements(bench, type, shape->n * stride_of(shape));
  p->bias = shape->bias ? bench_elements(bench, type, shape->outputs) : NULL;
  p->dw = bench_floats(bench, type, shape->outputs * shape->inputs);
  p->dbias = shape->bias ? bench_floats(bench, type, shape->outputs) : NULL;
}

/* Passes over the same arrays, the one that overwrites x last. */
static void measure(Bench *bench, const Shape *shape, ElementType type) {
  static const struct {
    const char *name;
    Call *call;
  } passes[] = {
      {"forward", forward}, {"weight gradient", weight_gradient}, {"input gradient", input_gradient}};
  Product p = {.shape = *shape};
  for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
    Case c;
    if (!bench_begin(bench, &c, type, bench_limit(type), "%s %s %s %lldx%lldx%lld", passes[i].name,
                     bench_type_name(type), shape->name, (long long)shape->n, (long long)shape->inputs,
                     (long long)shape->outputs)) {
      continue;
    }
    if (p.x == NULL) take_memory(bench, shape, type, &p);
    c.work = 2 * (double)shape->n * (double)shape->inputs * (double)shape->outputs;
    bench_measure(bench, &c, passes[i].call, &p);
  }
  bench_release(bench);
}

void bench_products(Bench *bench) {
  const Shape *shapes = bench->cuda ? cuda_shapes : cpu_shapes;
  size_t count = bench->cuda ? sizeof cuda_shapes / sizeof shapes[0] : sizeof cpu_shapes / sizeof shapes[0];
  if (bench->quick) {
    shapes = quick_shapes;
    count = sizeof quick_shapes / sizeof shapes[0];
  }
  for (size_t i = 0; i < count; i++) {
    if ((shapes[i].types & F32) != 0) measure(bench, &shapes[i], ELEMENT_F32);
    if ((shapes[i].types & BF16) != 0) measure(bench, &shapes[i], ELEMENT_BF16);
  }
}
