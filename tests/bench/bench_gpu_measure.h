/* Timing of calls on a device, as shares of peaks measured in between: for the parts of bench_gpu. */
#ifndef RINGGPT_BENCH_GPU_MEASURE_H
#define RINGGPT_BENCH_GPU_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/device.h"

#define GPU_MOST_SAMPLES 99
#define GPU_NAME_BYTES 128

/* What a call is measured against: a large product in the type of its elements, or a large copy. */
typedef enum GpuLimit { GPU_PRODUCT_F32, GPU_PRODUCT_BF16, GPU_MEMORY, GPU_LIMITS } GpuLimit;

typedef void GpuCall(Device *device, void *context);

/* A square product y = x w^T of `size` rows, or a copy of `size` bytes from x to y, `calls` of them at a
 * time.
 */
typedef struct GpuPeak {
  Device *device;
  void *x, *w, *y;
  int64_t size;
  double work; /* of one call: floating-point operations, or bytes read and written */
  int64_t calls;
} GpuPeak;

typedef struct GpuMemory GpuMemory;

typedef struct GpuBench {
  Device *devices[2]; /* by ElementType */
  void *words[2];     /* a word of each, read as synchronisation */
  GpuPeak peaks[GPU_LIMITS];
  GpuMemory *memory;    /* what gpu_array took */
  Error error;          /* of the first of them that failed since gpu_release */
  bool quick;           /* tiny sizes: shows that everything runs, measures nothing */
  FILE *json;           /* a JSON object a line goes there too, where it is not NULL */
  int samples;          /* 1 to GPU_MOST_SAMPLES */
  double sample;        /* seconds that one takes at least */
  double part_seconds;  /* cases that would begin later in their part are left out */
  double part_end;      /* on the clock of gpu_now */
  const char *part;     /* its name */
  int measured, broken; /* cases so far; left out ones are neither */
} GpuBench;

/* One thing to measure. */
typedef struct GpuCase {
  char name[GPU_NAME_BYTES];
  ElementType type; /* the device that it runs on */
  GpuLimit limit;
  double work; /* of one call, as GpuPeak.work */
} GpuCase;

/* Seconds of a clock that never goes back. */
double gpu_now(void);

/* Makes the devices of CUDA device `index` and the peaks' arrays, and finds how many calls a sample needs. On
 * failure nothing is left. gpu_close with what is in memory. */
Status gpu_open(GpuBench *bench, int index, Error *error);
void gpu_close(GpuBench *bench);

/* Measures the peaks themselves, against themselves. */
void gpu_measure_peaks(GpuBench *bench);

/* Device memory until gpu_release: `count` elements of the type or floats with numbers in [-1, 1), or `bytes`
 * zeros. NULL once any has failed. */
elem *gpu_elements(GpuBench *bench, ElementType type, int64_t count);
float *gpu_floats(GpuBench *bench, ElementType device, int64_t count);
void *gpu_zeros(GpuBench *bench, ElementType device, size_t bytes);
void gpu_release(GpuBench *bench);

/* Starts a case: its name by a printf format. False, said in a line, where the part has no time left. */
bool gpu_begin(GpuBench *bench, GpuCase *c, ElementType type, GpuLimit limit, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Measures calls of one case and prints a line: the time of a call, work / time and that as a share of the
 * peak, each the median and range of the samples. Says why, where memory for it failed. */
void gpu_measure(GpuBench *bench, const GpuCase *c, GpuCall *call, void *context);

/* The limit of a product in elements of the type, and the type's name. */
GpuLimit gpu_product_limit(ElementType type);
const char *gpu_type_name(ElementType type);

/* The parts. */
void gpu_bench_attention(GpuBench *bench);
void gpu_bench_products(GpuBench *bench);
void gpu_bench_rows(GpuBench *bench);

#endif
