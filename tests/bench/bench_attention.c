/* Speed of attention, forward and backward, causal, as a share of the multiply-add peak measured in between.
 *
 *   bench_attention [-t tokens] [-d head size] [-n heads] [-k key heads] [-r tokens of a run] [-j threads]
 *                   [-s samples] [-i reference|avx512]
 *
 * Floating-point operations are those of a causal mask: forward 2 T^2 D per head, backward 2.5 times as many.
 * With -r the sequence is cut into runs that meet block by block, as on a ring. Packing is timed with
 * forward, the conversions of gradients with backward. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/memory.h"
#include "kernels/base/philox.h"
#include "kernels/cpu/attention_reference.h"
#include "kernels/cpu/cpu_device.h"
#if defined(__x86_64__)
#include "kernels/cpu/attention_avx512.h"
#include "tests/bench/peak_avx512.h"
#endif

#define MAX_SAMPLES 99

typedef struct Bench {
  const AttentionOps *ops;
  AttentionDims dims;
  int64_t tokens;
  int64_t run; /* tokens of a run, divides `tokens` */
  Device *device;
  int threads;
  double polled_at;
  int samples;
  int64_t *first_key; /* (T) */
  float *q;           /* (T, H, D) */
  float *k;           /* (T, KV, D) */
  float *v;
  float *dout;
  float *out;
  float *lse; /* (runs, H, run) */
  float *dq;
  float *dk;
  float *dv;
  char *kv;    /* a packed run behind the other */
  char *dkv;   /* likewise */
  void *state; /* of one run of queries */
} Bench;

typedef struct Samples {
  double gflops[MAX_SAMPLES];
  double share[MAX_SAMPLES];
} Samples;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak(const Bench *b) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return peak_avx512(b->threads);
#endif
  (void)b;
  return NAN;
}

static bool choose(Bench *b, const char *name) {
  b->ops = NULL;
  if (strcmp(name, "reference") == 0) b->ops = &attention_reference;
#if defined(__x86_64__)
  if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f")) b->ops = &attention_avx512;
#endif
  return b->ops != NULL;
}

static bool parse(int argc, char **argv, Bench *b) {
  *b = (Bench){.dims = {.heads = 4, .head_dim = 64}, .tokens = 4096, .threads = 1, .samples = 5};
  bool good = choose(b, "avx512") || choose(b, "reference");
  for (int option = getopt(argc, argv, "t:d:n:k:r:j:s:i:"); option != -1;
       option = getopt(argc, argv, "t:d:n:k:r:j:s:i:")) {
    const int64_t value = option == '?' ? 0 : strtoll(optarg, NULL, 10);
    if (option == 't') b->tokens = value;
    if (option == 'd') b->dims.head_dim = value;
    if (option == 'n') b->dims.heads = value;
    if (option == 'k') b->dims.kv_heads = value;
    if (option == 'r') b->run = value;
    if (option == 'j') b->threads = (int)value;
    if (option == 's') b->samples = (int)value;
    if (option == 'i') good = choose(b, optarg);
    if (option == '?') good = false;
  }
  if (b->dims.kv_heads == 0) b->dims.kv_heads = b->dims.heads;
  if (b->run == 0) b->run = b->tokens;
  return good && b->tokens > 0 && b->dims.heads > 0 && b->dims.heads % b->dims.kv_heads == 0 &&
         b->dims.head_dim > 0 && b->dims.head_dim % 8 == 0 && b->tokens % b->run == 0 && b->threads > 0 &&
         b->samples > 0 && b->samples <= MAX_SAMPLES;
}

static void *allocate(size_t bytes) {
  void *memory = NULL;
  Error error = {0};
  if (memory_alloc(bytes, 1, "benchmark", &memory, &error) != STATUS_OK) {
    fprintf(stderr, "%s\n", error.text);
    exit((int)error.status);
  }
  return memory;
}

static float *normal_numbers(uint32_t stream, int64_t count) {
  float *x = allocate((size_t)(count + 4) * sizeof *x);
  for (int64_t i = 0; i < count; i += 4) {
    uint32_t words[4];
    double pair[4];
    philox_draw(1, PHILOX_WEIGHTS, stream, (uint64_t)i, words);
    philox_normal_pair(words[0], words[1], pair);
    philox_normal_pair(words[2], words[3], pair + 2);
    for (int64_t j = 0; j < 4; j++) x[i + j] = (float)pair[j];
  }
  return x;
}

/* What a run with messages under way does at least. */
static void read_clock(void *context) {
  *(double *)context = now();
}

static void prepare(Bench *b) {
  Error error = {0};
  if (cpu_device_create(b->threads, &b->device, &error) != STATUS_OK) {
    fprintf(stderr, "%s\n", error.text);
    exit((int)error.status);
  }
  b->device->poll = read_clock;
  b->device->poll_context = &b->polled_at;
  b->dims.scale = 1.0F / sqrtf((float)b->dims.head_dim);
  const int64_t q_count = b->tokens * b->dims.heads * b->dims.head_dim;
  const int64_t k_count = b->tokens * b->dims.kv_heads * b->dims.head_dim;
  const size_t runs = (size_t)(b->tokens / b->run);
  b->first_key = allocate((size_t)b->tokens * sizeof *b->first_key);
  b->q = normal_numbers(1, q_count);
  b->k = normal_numbers(2, k_count);
  b->v = normal_numbers(3, k_count);
  b->dout = normal_numbers(4, q_count);
  b->out = allocate((size_t)q_count * sizeof(float));
  b->dq = allocate((size_t)q_count * sizeof(float));
  b->dk = allocate((size_t)k_count * sizeof(float));
  b->dv = allocate((size_t)k_count * sizeof(float));
  b->lse = allocate((size_t)(b->tokens * b->dims.heads) * sizeof(float));
  b->kv = allocate(runs * b->ops->kv_bytes(&b->dims, b->run));
  b->dkv = allocate(runs * b->ops->dkv_bytes(&b->dims, b->run));
  const size_t forward = b->ops->forward_bytes(&b->dims, b->run);
  const size_t backward = b->ops->backward_bytes(&b->dims, b->run);
  b->state = allocate(forward > backward ? forward : backward);
}

static void release(Bench *b) {
  void *blocks[] = {b->first_key, b->q,  b->k,  b->v,  b->dout, b->out,  b->lse,
                    b->dq,        b->dk, b->dv, b->kv, b->dkv,  b->state};
  for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) free(blocks[i]);
  device_destroy(b->device);
}

static void forward(Bench *b) {
  const int64_t row = b->dims.heads * b->dims.head_dim;
  const int64_t k_row = b->dims.kv_heads * b->dims.head_dim;
  const size_t kv_bytes = b->ops->kv_bytes(&b->dims, b->run);
  for (int64_t i = 0; i < b->tokens / b->run; i++) {
    const int64_t start = i * b->run;
    b->ops->pack_kv(b->device, &b->dims, b->run, b->k + start * k_row, b->v + start * k_row, k_row,
                    b->kv + (size_t)i * kv_bytes);
    b->ops->forward_begin(b->device, &b->dims, b->run, b->q + start * row, row, b->state);
    for (int64_t j = i; j >= 0; j--) {
      b->ops->forward_block(b->device, &b->dims, b->run, start, b->first_key + start, b->state, b->run,
                            j * b->run, b->kv + (size_t)j * kv_bytes);
    }
    b->ops->forward_end(b->device, &b->dims, b->run, b->state, b->out + start * row,
                        b->lse + start * b->dims.heads);
  }
}

static void backward(Bench *b) {
  const int64_t row = b->dims.heads * b->dims.head_dim;
  const int64_t k_row = b->dims.kv_heads * b->dims.head_dim;
  const size_t kv_bytes = b->ops->kv_bytes(&b->dims, b->run);
  const size_t dkv_bytes = b->ops->dkv_bytes(&b->dims, b->run);
  memset(b->dkv, 0, (size_t)(b->tokens / b->run) * dkv_bytes);
  for (int64_t i = 0; i < b->tokens / b->run; i++) {
    const int64_t start = i * b->run;
    b->ops->backward_begin(b->device, &b->dims, b->run, b->q + start * row, row, b->out + start * row,
                           b->dout + start * row, b->lse + start * b->dims.heads, b->state);
    for (int64_t j = i; j >= 0; j--) {
      b->ops->backward_block(b->device, &b->dims, b->run, start, b->first_key + start, b->state, b->run,
                             j * b->run, b->kv + (size_t)j * kv_bytes, b->dkv + (size_t)j * dkv_bytes);
    }
    b->ops->backward_end(b->device, &b->dims, b->run, b->state, b->dq + start * row, row);
  }
  for (int64_t j = 0; j < b->tokens / b->run; j++) {
    b->ops->unpack_dkv(b->device, &b->dims, b->run, b->dkv + (size_t)j * dkv_bytes,
                       b->dk + j * b->run * k_row, b->dv + j * b->run * k_row, k_row);
  }
}

/* One sample: repeated until it takes 20 ms, between two measurements of the peak. */
static void sample(Bench *b, void (*pass)(Bench *), double flops, double *gflops, double *share) {
  const double before = peak(b);
  const double start = now();
  double seconds = 0;
  int count = 0;
  while (seconds < 0.02) {
    pass(b);
    count++;
    seconds = now() - start;
  }
  *gflops = 1e-9 * flops * count / seconds;
  *share = *gflops / (0.5 * (before + peak(b)));
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

static void report(const Bench *b, const char *what, Samples *samples) {
  const size_t n = (size_t)b->samples;
  qsort(samples->gflops, n, sizeof(double), ascending);
  qsort(samples->share, n, sizeof(double), ascending);
  printf("%-9s T %lld run %lld D %lld heads %lld/%lld threads %d: %7.1f GFLOP/s (%.1f-%.1f), "
         "%.0f %% of the peak (%.0f-%.0f)\n",
         what, (long long)b->tokens, (long long)b->run, (long long)b->dims.head_dim, (long long)b->dims.heads,
         (long long)b->dims.kv_heads, b->threads, samples->gflops[n / 2], samples->gflops[0],
         samples->gflops[n - 1], 100 * samples->share[n / 2], 100 * samples->share[0],
         100 * samples->share[n - 1]);
}

int main(int argc, char **argv) {
  Bench b;
  if (!parse(argc, argv, &b)) {
    fprintf(stderr, "usage: bench_attention [-t tokens] [-d head size] [-n heads] [-k key heads] "
                    "[-r tokens of a run] [-j threads] [-s samples] [-i reference|avx512]\n");
    return STATUS_USAGE;
  }
  prepare(&b);
  const double tokens = (double)b.tokens;
  const double flops = 2 * tokens * tokens * (double)(b.dims.head_dim * b.dims.heads);
  Samples forward_samples;
  Samples backward_samples;
  forward(&b);
  for (int i = 0; i < b.samples; i++) {
    sample(&b, forward, flops, &forward_samples.gflops[i], &forward_samples.share[i]);
    sample(&b, backward, 2.5 * flops, &backward_samples.gflops[i], &backward_samples.share[i]);
  }
  report(&b, "forward", &forward_samples);
  report(&b, "backward", &backward_samples);
  release(&b);
  return 0;
}
