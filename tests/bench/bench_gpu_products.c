/* Products in the shapes of GPT-2 124M and of Llama 3 8B: forward, input gradient, weight gradient. Each is
 * 2 n inputs outputs floating-point operations. */
#include "tests/bench/bench_gpu_measure.h"

typedef struct Shape {
  const char *name;
  ElementType type;
  int64_t n, inputs, outputs;
  bool bias;
} Shape;

static const Shape shapes[] = {
    {"GPT-2 qkv", ELEMENT_BF16, 8192, 768, 2304, true},
    {"GPT-2 attention out", ELEMENT_BF16, 8192, 768, 768, true},
    {"GPT-2 MLP up", ELEMENT_BF16, 8192, 768, 3072, true},
    {"GPT-2 MLP down", ELEMENT_BF16, 8192, 3072, 768, true},
    {"GPT-2 head", ELEMENT_BF16, 4096, 768, 50257, false},
    {"Llama 8B qkv", ELEMENT_BF16, 8192, 4096, 6144, false},
    {"Llama 8B attention out", ELEMENT_BF16, 8192, 4096, 4096, false},
    {"Llama 8B gate and up", ELEMENT_BF16, 8192, 4096, 28672, false},
    {"Llama 8B down", ELEMENT_BF16, 8192, 14336, 4096, false},
    {"Llama 8B head", ELEMENT_BF16, 4096, 4096, 128256, false},
    {"GPT-2 qkv", ELEMENT_F32, 8192, 768, 2304, true},
    {"GPT-2 attention out", ELEMENT_F32, 8192, 768, 768, true},
    {"GPT-2 MLP up", ELEMENT_F32, 8192, 768, 3072, true},
    {"GPT-2 MLP down", ELEMENT_F32, 8192, 3072, 768, true},
    {"GPT-2 head", ELEMENT_F32, 4096, 768, 50257, false},
};

static const Shape quick_shapes[] = {
    {"GPT-2 MLP up", ELEMENT_BF16, 16, 48, 64, true},
    {"GPT-2 head", ELEMENT_BF16, 16, 48, 101, false},
    {"GPT-2 MLP up", ELEMENT_F32, 16, 48, 64, true},
};

typedef struct Product {
  Shape shape;
  elem *x, *w, *bias, *y; /* (n, inputs), (outputs, inputs), (outputs) or NULL, (n, outputs) */
  float *dw, *dbias;      /* as w, as bias */
} Product;

static void forward(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_forward(device, s->n, s->inputs, s->outputs, p->x, p->w, p->bias, p->y);
}

static void input_gradient(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_backward_input(device, s->n, s->inputs, s->outputs, p->y, p->w, p->x);
}

static void weight_gradient(Device *device, void *context) {
  const Product *p = context;
  const Shape *s = &p->shape;
  device->ops.linear_backward_weight(device, s->n, s->inputs, s->outputs, p->y, p->x, p->dw, p->dbias);
}

/* Passes over the same arrays, the one that overwrites x last. */
static void measure(GpuBench *bench, const Shape *shape) {
  static const struct {
    const char *name;
    GpuCall *call;
  } passes[] = {
      {"forward", forward}, {"weight gradient", weight_gradient}, {"input gradient", input_gradient}};
  const ElementType type = shape->type;
  Product p = {.shape = *shape};
  for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++) {
    GpuCase c;
    if (!gpu_begin(bench, &c, type, gpu_product_limit(type), "%s %s %s %lldx%lldx%lld", passes[i].name,
                   gpu_type_name(type), shape->name, (long long)shape->n, (long long)shape->inputs,
                   (long long)shape->outputs)) {
      break;
    }
    if (i == 0) {
      p.x = gpu_elements(bench, type, shape->n * shape->inputs);
      p.w = gpu_elements(bench, type, shape->outputs * shape->inputs);
      p.y = gpu_elements(bench, type, shape->n * shape->outputs);
      p.bias = shape->bias ? gpu_elements(bench, type, shape->outputs) : NULL;
      p.dw = gpu_floats(bench, type, shape->outputs * shape->inputs);
      p.dbias = shape->bias ? gpu_floats(bench, type, shape->outputs) : NULL;
    }
    c.work = 2 * (double)shape->n * (double)shape->inputs * (double)shape->outputs;
    gpu_measure(bench, &c, passes[i].call, &p);
  }
  gpu_release(bench);
}

void gpu_bench_products(GpuBench *bench) {
  const Shape *list = bench->quick ? quick_shapes : shapes;
  const size_t count =
      bench->quick ? sizeof quick_shapes / sizeof quick_shapes[0] : sizeof shapes / sizeof shapes[0];
  for (size_t i = 0; i < count; i++) measure(bench, &list[i]);
}
