/* Memory of cases, released together. */
#ifndef RINGGPT_BENCH_MEMORY_H
#define RINGGPT_BENCH_MEMORY_H

#include "tests/bench/measure.h"

/* Device memory until bench_release: `count` elements of the type or floats with numbers in [-1, 1), or
 * `bytes` zeros, all of the device of that type. NULL once any has failed. */
elem *bench_elements(Bench *bench, ElementType type, int64_t count);
float *bench_floats(Bench *bench, ElementType device, int64_t count);
void *bench_zeros(Bench *bench, ElementType device, size_t bytes);

/* Releases it all, and forgets what failed. */
void bench_release(Bench *bench);

/* Leaves what was given so far to its user, who releases it by device_free. */
void bench_keep(Bench *bench);

#endif
