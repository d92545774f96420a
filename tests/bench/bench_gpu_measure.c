/* Timing of calls on a device: see the header. */
#include "tests/bench/bench_gpu_measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/load.h"

#define PRODUCT_SIZE 8192
#define COPY_BYTES ((int64_t)1 << 30)
#define QUICK_PRODUCT_SIZE 64
#define QUICK_COPY_BYTES ((int64_t)1 << 16)
/* Numbers that are written again and again to fill an array. */
#define TILE_NUMBERS ((int64_t)1 << 20)
/* A sample of a peak may be shorter than that of a case: there are many. */
#define PEAK_SHARE 0.25
#define MOST_CALLS 100000

struct GpuMemory {
  GpuMemory *next;
  Device *device;
  void *memory;
};

double gpu_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

GpuLimit gpu_product_limit(ElementType type) {
  return type == ELEMENT_BF16 ? GPU_PRODUCT_BF16 : GPU_PRODUCT_F32;
}

const char *gpu_type_name(ElementType type) {
  return type == ELEMENT_BF16 ? "bf16" : "fp32";
}

/* ---------------------------------------------------------------- memory */

void *gpu_zeros(GpuBench *bench, ElementType device, size_t bytes) {
  if (bench->error.status != STATUS_OK) return NULL;
  GpuMemory *memory = malloc(sizeof *memory);
  if (memory == NULL) {
    (void)fail(&bench->error, STATUS_SYSTEM, "the machine has no memory left");
    return NULL;
  }
  *memory = (GpuMemory){.next = bench->memory, .device = bench->devices[device]};
  if (device_alloc(memory->device, bytes > 0 ? bytes : 1, "the benchmark", &memory->memory, &bench->error) !=
      STATUS_OK) {
    free(memory);
    return NULL;
  }
  bench->memory = memory;
  return memory->memory;
}

void gpu_release(GpuBench *bench) {
  while (bench->memory != NULL) {
    GpuMemory *memory = bench->memory;
    bench->memory = memory->next;
    device_free(memory->device, memory->memory);
    free(memory);
  }
  bench->error = (Error){0};
}

/* Numbers in [-1, 1): products of zeros would draw less power and so run faster. */
static void fill(Device *device, bool floats, int64_t count, void *memory) {
  const size_t size = floats ? sizeof(float) : sizeof(uint16_t);
  const int64_t tile = count < TILE_NUMBERS ? count : TILE_NUMBERS;
  char *host = malloc((size_t)tile * size + 1);
  uint32_t random = 1;
  for (int64_t i = 0; host != NULL && i < tile; i++) {
    random = random * 1664525U + 1013904223U;
    const float x = (float)(random >> 8) / 8388608.0F - 1.0F;
    const char *bytes = (const char *)&x;
    /* The upper half of a float is a bf16 number. */
    memcpy(host + (size_t)i * size, floats ? bytes : bytes + 2, size);
  }
  for (int64_t i = 0; host != NULL && i < count; i += tile) {
    const int64_t left = count - i < tile ? count - i : tile;
    device_write(device, (char *)memory + (size_t)i * size, host, (size_t)left * size);
  }
  free(host);
}

elem *gpu_elements(GpuBench *bench, ElementType type, int64_t count) {
  const bool floats = type == ELEMENT_F32;
  elem *memory = gpu_zeros(bench, type, (size_t)count * (floats ? sizeof(float) : sizeof(uint16_t)));
  if (memory != NULL) fill(bench->devices[type], floats, count, memory);
  return memory;
}

float *gpu_floats(GpuBench *bench, ElementType device, int64_t count) {
  float *memory = gpu_zeros(bench, device, (size_t)count * sizeof(float));
  if (memory != NULL) fill(bench->devices[device], true, count, memory);
  return memory;
}

/* ---------------------------------------------------------------- time */

/* Seconds of `calls` calls, from an idle device to an idle device. */
static double time_calls(const GpuBench *bench, Device *device, GpuCall *call, void *context, int64_t calls) {
  uint32_t word = 0;
  const void *memory = bench->words[device == bench->devices[ELEMENT_BF16] ? ELEMENT_BF16 : ELEMENT_F32];
  const double start = gpu_now();
  for (int64_t i = 0; i < calls; i++) call(device, context);
  device_read(device, &word, memory, sizeof word);
  return gpu_now() - start;
}

/* Warms up, and finds how many calls take `seconds`. */
static int64_t find_calls(const GpuBench *bench, Device *device, GpuCall *call, void *context,
                          double seconds) {
  int64_t calls = 1;
  double taken = time_calls(bench, device, call, context, 1);
  for (taken = time_calls(bench, device, call, context, 1); taken < seconds && calls < MOST_CALLS;
       taken = time_calls(bench, device, call, context, calls)) {
    const double more = taken > 0 ? 1.2 * seconds / taken : 10;
    calls = (int64_t)((double)calls * (more < 10 ? more : 10)) + 1;
  }
  return calls;
}

static void call_product(Device *device, void *context) {
  const GpuPeak *peak = context;
  device->ops.linear_forward(device, peak->size, peak->size, peak->size, peak->x, peak->w, NULL, peak->y);
}

static void call_copy(Device *device, void *context) {
  const GpuPeak *peak = context;
  device_copy_rows(device, peak->y, (size_t)peak->size, peak->x, (size_t)peak->size, (size_t)peak->size, 1);
}

static GpuCall *peak_call(GpuLimit limit) {
  return limit == GPU_MEMORY ? call_copy : call_product;
}

/* Work a second of the peak, now. */
static double measure_peak(GpuBench *bench, GpuLimit limit) {
  GpuPeak *peak = &bench->peaks[limit];
  const double seconds = time_calls(bench, peak->device, peak_call(limit), peak, peak->calls);
  return peak->work * (double)peak->calls / seconds;
}

/* ---------------------------------------------------------------- open and close */

static Status open_peak(GpuBench *bench, GpuLimit limit, ElementType type, Error *error) {
  GpuPeak *peak = &bench->peaks[limit];
  const bool copy = limit == GPU_MEMORY;
  peak->device = bench->devices[type];
  peak->size = bench->quick ? QUICK_PRODUCT_SIZE : PRODUCT_SIZE;
  if (copy) peak->size = bench->quick ? QUICK_COPY_BYTES : COPY_BYTES;
  const double size = (double)peak->size;
  peak->work = copy ? 2 * size : 2 * size * size * size;
  const int64_t count = copy ? peak->size / 4 : peak->size * peak->size;
  peak->x = gpu_elements(bench, type, count);
  peak->w = copy ? NULL : gpu_elements(bench, type, count);
  peak->y = gpu_elements(bench, type, count);
  if (bench->error.status != STATUS_OK) return fail(error, bench->error.status, "%s", bench->error.text);
  peak->calls = find_calls(bench, peak->device, peak_call(limit), peak, PEAK_SHARE * bench->sample);
  return device_check(peak->device, error);
}

static Status open_all(GpuBench *bench, int index, Error *error) {
  for (int type = ELEMENT_F32; type <= ELEMENT_BF16; type++) {
    TRY(cuda_device_create(index, (ElementType)type, &bench->devices[type], error));
    TRY(device_alloc(bench->devices[type], sizeof(uint32_t), "the benchmark", &bench->words[type], error));
  }
  TRY(open_peak(bench, GPU_PRODUCT_F32, ELEMENT_F32, error));
  TRY(open_peak(bench, GPU_PRODUCT_BF16, ELEMENT_BF16, error));
  TRY(open_peak(bench, GPU_MEMORY, ELEMENT_F32, error));
  /* From here on gpu_release means what a part took. */
  for (GpuMemory *next = NULL; bench->memory != NULL; bench->memory = next) {
    next = bench->memory->next;
    free(bench->memory);
  }
  return STATUS_OK;
}

Status gpu_open(GpuBench *bench, int index, Error *error) {
  const Status status = open_all(bench, index, error);
  if (status != STATUS_OK) {
    if (bench->memory != NULL)
      memset(bench->peaks, 0, sizeof bench->peaks); /* gpu_close releases them once */
    gpu_close(bench);
  }
  return status;
}

void gpu_close(GpuBench *bench) {
  gpu_release(bench);
  for (int limit = 0; limit < GPU_LIMITS; limit++) {
    const GpuPeak *peak = &bench->peaks[limit];
    if (peak->device == NULL) continue;
    device_free(peak->device, peak->x);
    device_free(peak->device, peak->w);
    device_free(peak->device, peak->y);
  }
  for (int type = ELEMENT_F32; type <= ELEMENT_BF16; type++) {
    if (bench->devices[type] != NULL) device_free(bench->devices[type], bench->words[type]);
    device_destroy(bench->devices[type]);
  }
}

/* ---------------------------------------------------------------- cases */

/* Samples, sorted: their median is in the middle, their range at the ends. */
typedef struct Samples {
  double values[GPU_MOST_SAMPLES];
  int count;
} Samples;

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

static double middle(Samples *samples) {
  qsort(samples->values, (size_t)samples->count, sizeof(double), ascending);
  return samples->values[samples->count / 2];
}

static void report(const GpuBench *bench, const GpuCase *c, Samples *seconds, Samples *shares,
                   int64_t calls) {
  static const char *const units[] = {"TFLOP/s", "TFLOP/s", "GB/s"};
  const double time = middle(seconds);
  const double share = middle(shares);
  const double rate = (c->limit == GPU_MEMORY ? 1e-9 : 1e-12) * c->work / time;
  const int last = seconds->count - 1;
  printf("%-10s %-52s %10.4f ms (%.4f-%.4f) %9.2f %-7s %5.1f %% of the peak (%.1f-%.1f)\n", bench->part,
         c->name, 1e3 * time, 1e3 * seconds->values[0], 1e3 * seconds->values[last], rate, units[c->limit],
         100 * share, 100 * shares->values[0], 100 * shares->values[last]);
  (void)fflush(stdout);
  if (bench->json == NULL) return;
  (void)fprintf(bench->json,
                "{\"part\": \"%s\", \"case\": \"%s\", \"type\": \"%s\", \"ms\": %.6g, \"ms_least\": %.6g, "
                "\"ms_most\": %.6g, \"work\": %.9g, \"rate\": %.6g, \"unit\": \"%s\", \"share\": %.4f, "
                "\"share_least\": %.4f, \"share_most\": %.4f, \"samples\": %d, \"calls\": %lld}\n",
                bench->part, c->name, gpu_type_name(c->type), 1e3 * time, 1e3 * seconds->values[0],
                1e3 * seconds->values[last], c->work, rate, units[c->limit], share, shares->values[0],
                shares->values[last], seconds->count, (long long)calls);
}

static void leave_out(const GpuBench *bench, const GpuCase *c, const char *why) {
  printf("%-10s %-52s left out: %s\n", bench->part, c->name, why);
}

bool gpu_begin(GpuBench *bench, GpuCase *c, ElementType type, GpuLimit limit, const char *format, ...) {
  va_list arguments;
  *c = (GpuCase){.type = type, .limit = limit};
  va_start(arguments, format);
  (void)vsnprintf(c->name, sizeof c->name, format, arguments);
  va_end(arguments);
  if (gpu_now() < bench->part_end) return true;
  leave_out(bench, c, "no time is left");
  return false;
}

/* Every sample stands between two of the peak, of which each serves two samples. */
static void take_samples(GpuBench *bench, const GpuCase *c, GpuCall *call, void *context) {
  Device *device = bench->devices[c->type];
  Samples seconds = {.count = bench->samples};
  Samples shares = {.count = bench->samples};
  const int64_t calls = find_calls(bench, device, call, context, bench->sample);
  double before = measure_peak(bench, c->limit);
  for (int i = 0; i < bench->samples; i++) {
    seconds.values[i] = time_calls(bench, device, call, context, calls) / (double)calls;
    const double after = measure_peak(bench, c->limit);
    shares.values[i] = c->work / seconds.values[i] / (0.5 * (before + after));
    before = after;
  }
  Error error = {0};
  if (device_check(device, &error) == STATUS_OK) {
    report(bench, c, &seconds, &shares, calls);
    bench->measured++;
  } else {
    leave_out(bench, c, error.text);
    bench->broken++;
  }
}

void gpu_measure(GpuBench *bench, const GpuCase *c, GpuCall *call, void *context) {
  if (bench->error.status == STATUS_OK) {
    take_samples(bench, c, call, context);
  } else {
    leave_out(bench, c, bench->error.text);
  }
}

void gpu_measure_peaks(GpuBench *bench) {
  static const char *const names[] = {"product fp32", "product bf16", "copy"};
  for (int limit = 0; limit < GPU_LIMITS; limit++) {
    GpuPeak *peak = &bench->peaks[limit];
    GpuCase c;
    const ElementType type = limit == GPU_PRODUCT_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
    if (!gpu_begin(bench, &c, type, (GpuLimit)limit, "%s %lld", names[limit], (long long)peak->size))
      continue;
    c.work = peak->work;
    gpu_measure(bench, &c, peak_call((GpuLimit)limit), peak);
  }
}
