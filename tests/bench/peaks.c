/* The peaks: see the header. */
#include "tests/bench/peaks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/memory.h"
#include "tests/bench/cpu_peaks.h"
#include "tests/bench/memory.h"

#define PRODUCT_SIZE 8192
#define QUICK_PRODUCT_SIZE 64
#define CUDA_COPY_BYTES ((int64_t)1 << 30)
#define CPU_ARRAY_BYTES ((int64_t)1 << 27)
#define QUICK_COPY_BYTES ((int64_t)1 << 16)
/* A sample of a peak may be shorter than that of a case: there are many. */
#define PEAK_SHARE 0.25
#define QUICK_SECONDS 1e-4
#define CLOCK_TRIES 5

/* On a CUDA device a square product y = x w^T of `size` rows, or a copy of `size` bytes from x to y. On the
 * CPU a kernel, or y += x with arrays of `size` bytes. */
typedef struct Peak {
  Device *device;
  void *x, *w, *y;
  int64_t size;
  double work;   /* of one repetition: floating-point operations, or bytes read and written */
  int64_t calls; /* or steps of the kernel */
  const PeakKernel *kernel;
  double units; /* instructions of the kernel in a cycle */
} Peak;

struct Peaks {
  Peak of[DEVICE_LIMITS];
};

double peaks_rate(const PeakSample *sample, bool alone) {
  return alone ? sample->alone : sample->rate;
}

/* ---------------------------------------------------------------- a CUDA device */

static void call_product(Device *device, void *context) {
  const Peak *peak = context;
  device->ops.linear_forward(device, peak->size, peak->size, peak->size, peak->size, peak->x, peak->w, NULL,
                             peak->y);
}

static void call_copy(Device *device, void *context) {
  const Peak *peak = context;
  device_copy_rows(device, peak->y, (size_t)peak->size, peak->x, (size_t)peak->size, (size_t)peak->size, 1);
}

static PeakSample measure_cuda(Bench *bench, Limit limit) {
  Peak *peak = &bench->peaks->of[limit];
  Call *call = limit == LIMIT_MEMORY ? call_copy : call_product;
  const double seconds = bench_time_calls(bench, peak->device, call, peak, peak->calls);
  const double rate = peak->work * (double)peak->calls / seconds;
  return (PeakSample){.rate = rate, .alone = rate, .pair = bench->threads, .of_clock = 1};
}

static Status open_cuda(Bench *bench, Limit limit, Error *error) {
  Peak *peak = &bench->peaks->of[limit];
  const bool copy = limit == LIMIT_MEMORY;
  const ElementType type = limit == LIMIT_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
  peak->device = bench->devices[type];
  peak->size = bench->quick ? QUICK_PRODUCT_SIZE : PRODUCT_SIZE;
  if (copy) peak->size = bench->quick ? QUICK_COPY_BYTES : CUDA_COPY_BYTES;
  const double size = (double)peak->size;
  peak->work = copy ? 2 * size : 2 * size * size * size;
  const int64_t count = copy ? peak->size / (int64_t)sizeof(float) : peak->size * peak->size;
  peak->x = bench_elements(bench, type, count);
  peak->w = copy ? NULL : bench_elements(bench, type, count);
  peak->y = bench_elements(bench, type, count);
  if (bench->error.status != STATUS_OK) return fail(error, bench->error.status, "%s", bench->error.text);
  peak->calls = bench_find_calls(bench, peak->device, copy ? call_copy : call_product, peak,
                                 PEAK_SHARE * bench->sample);
  return device_check(peak->device, error);
}

/* ---------------------------------------------------------------- the CPU */

/* Arithmetic, and what it says of the machine. */
static PeakSample measure_arithmetic(const Bench *bench, Limit limit) {
  const Peak *peak = &bench->peaks->of[limit];
  const CpuArithmetic now = cpu_peak_arithmetic(peak->kernel, peak->calls, bench->threads);
  const double most = now.clock * bench->threads * peak->units * peak->kernel->flops;
  return (PeakSample){.rate = now.rate,
                      .alone = now.alone,
                      .pair = now.rate / now.alone,
                      .most = most,
                      .of_clock = fmin(now.rate, now.alone * bench->threads) / most};
}

static PeakSample measure_cpu(const Bench *bench, Limit limit) {
  const Peak *peak = &bench->peaks->of[limit];
  PeakSample sample = measure_arithmetic(bench, limit == LIMIT_MEMORY ? LIMIT_F32 : limit);
  if (limit != LIMIT_MEMORY) return sample;
  const int64_t count = peak->size / (int64_t)sizeof(float);
  sample.rate = peak->work / cpu_peak_update(peak->y, peak->x, count, bench->threads);
  sample.alone = sample.rate;
  return sample;
}

static void open_arithmetic(Bench *bench, Limit limit, int units) {
  Peak *peak = &bench->peaks->of[limit];
  const Device *halves = bench->devices[ELEMENT_BF16];
  const bool avx2 = strcmp(bench->devices[ELEMENT_F32]->ops.name, "avx2") == 0;
  const bool dots = limit == LIMIT_BF16 && (halves == NULL || strcmp(halves->ops.name, "avx512_bf16") == 0);
  peak->kernel = cpu_peak_kernel(dots, avx2);
  peak->calls = cpu_peak_steps(peak->kernel, bench->quick ? QUICK_SECONDS : PEAK_SHARE * bench->sample);
  peak->units = units > 0 ? units : cpu_peak_units(peak->kernel, peak->calls);
  double clock = 0; /* whatever else runs makes it less */
  for (int i = 0; i < CLOCK_TRIES; i++) {
    clock = fmax(clock, cpu_peak_arithmetic(peak->kernel, peak->calls, bench->threads).clock);
  }
  printf("peak of %s: %s, %d sums, %g a cycle; clock %.2f GHz\n", limit == LIMIT_BF16 ? "bf16" : "fp32",
         peak->kernel->name, peak->kernel->instructions, peak->units, 1e-9 * clock);
}

static Status open_update(Bench *bench, Error *error) {
  Peak *peak = &bench->peaks->of[LIMIT_MEMORY];
  peak->size = bench->quick ? QUICK_COPY_BYTES : CPU_ARRAY_BYTES;
  peak->work = 3 * (double)peak->size; /* x and y read, y written */
  peak->x = bench_zeros(bench, ELEMENT_F32, (size_t)peak->size);
  peak->y = bench_zeros(bench, ELEMENT_F32, (size_t)peak->size);
  if (bench->error.status != STATUS_OK) return fail(error, bench->error.status, "%s", bench->error.text);
  peak->calls = 1;
  return STATUS_OK;
}

static Status open_cpu(Bench *bench, int units, Error *error) {
  open_arithmetic(bench, LIMIT_F32, units);
  open_arithmetic(bench, LIMIT_BF16, units);
  return open_update(bench, error);
}

/* ---------------------------------------------------------------- all of them */

/* Of what no device limits: whether the machine is the benchmark's own shows in the arithmetic of its CPU all
 * the same. Not where other processes take part: they would have to agree on when to measure again. */
static PeakSample measure_other(Bench *bench, Limit limit) {
  PeakSample sample = {.pair = bench->threads, .of_clock = 1};
  if (!bench->cuda && bench->processes == NULL) sample = measure_arithmetic(bench, LIMIT_F32);
  sample.rate =
      limit == LIMIT_NONE ? 1 : bench->file.work / bench->file.repetition(bench, bench->file.context);
  sample.alone = sample.rate;
  return sample;
}

Status peaks_open(Bench *bench, int units, Error *error) {
  Status status = STATUS_OK;
  void *memory = NULL;
  TRY_GOTO(memory_alloc(1, sizeof(Peaks), "the benchmark", &memory, error), failed);
  bench->peaks = memory;
  if (!bench->cuda) TRY_GOTO(open_cpu(bench, units, error), failed);
  for (int limit = 0; limit < DEVICE_LIMITS && bench->cuda; limit++) {
    TRY_GOTO(open_cuda(bench, (Limit)limit, error), failed);
  }
  /* From here on bench_release means what a part took. */
  bench_keep(bench);
  return STATUS_OK;
failed:
  bench_release(bench);
  free(memory);
  bench->peaks = NULL;
  return status;
}

void peaks_close(Bench *bench) {
  if (bench->peaks == NULL) return;
  for (int limit = 0; limit < DEVICE_LIMITS; limit++) {
    const Peak *peak = &bench->peaks->of[limit];
    Device *device = peak->device != NULL ? peak->device : bench->devices[ELEMENT_F32];
    device_free(device, peak->x);
    device_free(device, peak->w);
    device_free(device, peak->y);
  }
  free(bench->peaks);
  bench->peaks = NULL;
}

PeakSample peaks_measure(Bench *bench, Limit limit) {
  if ((int)limit >= DEVICE_LIMITS) return measure_other(bench, limit);
  return bench->cuda ? measure_cuda(bench, limit) : measure_cpu(bench, limit);
}

/* ---------------------------------------------------------------- the part */

static void name_case(const Bench *bench, Limit limit, bool alone, Case *c) {
  static const char *const products[] = {"product fp32", "product bf16", "copy"};
  const Peak *peak = &bench->peaks->of[limit];
  if (bench->cuda || limit == LIMIT_MEMORY) {
    const char *name = bench->cuda ? products[limit] : "y += x in memory";
    (void)snprintf(c->name, sizeof c->name, "%s %lld", name, (long long)peak->size);
  } else {
    (void)snprintf(c->name, sizeof c->name, "%s %s%s", peak->kernel->name,
                   limit == LIMIT_BF16 ? "bf16" : "fp32", alone ? " 1 thread" : "");
  }
}

/* A repetition is what one sample of the peak does; its share that of the clock, or 1. */
static void measure_peak(Bench *bench, Limit limit, bool alone) {
  const Peak *peak = &bench->peaks->of[limit];
  Results results = {.count = bench->samples, .calls = peak->calls};
  Case c = {.type = limit == LIMIT_BF16 ? ELEMENT_BF16 : ELEMENT_F32, .alone = alone, .limit = limit};
  name_case(bench, limit, alone, &c);
  c.clock = peak->kernel != NULL;
  c.work = peak->work;
  if (peak->kernel != NULL) c.work = peak->kernel->flops * peak->kernel->instructions * (double)peak->calls;
  if (!bench->cuda && !alone && limit != LIMIT_MEMORY) c.work *= bench->threads;
  if (bench->devices[c.type] == NULL) c.type = ELEMENT_F32;
  for (int i = 0; i < bench->samples; i++) {
    const PeakSample sample = bench_wait(bench, limit, &results);
    const double rate = peaks_rate(&sample, alone);
    results.seconds[i] = c.work / rate;
    results.shares[i] =
        peak->kernel == NULL ? 1 : rate / (alone ? sample.most / bench->threads : sample.most);
    results.pairs[i] = sample.pair;
    results.of_clock[i] = sample.of_clock;
  }
  bench_report(bench, &c, &results);
}

void bench_peaks(Bench *bench) {
  for (int limit = 0; limit < DEVICE_LIMITS; limit++) {
    if (!bench->cuda && bench->threads > 1 && limit != LIMIT_MEMORY) {
      measure_peak(bench, (Limit)limit, true);
    }
    measure_peak(bench, (Limit)limit, false);
  }
}
