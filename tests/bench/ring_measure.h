/* Measurements of a ring: the block that a hop computes, the transfers alone, and both together. */
#ifndef RINGGPT_BENCH_RING_MEASURE_H
#define RINGGPT_BENCH_RING_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"
#include "train/grid.h"

#define RING_MOST_REPETITIONS 99

typedef struct RingTask {
  AttentionDims dims;
  int64_t tokens;      /* T, a multiple of 2 R */
  int64_t repetitions; /* at most RING_MOST_REPETITIONS */
} RingTask;

/* One pass, forward or backward; of a ring of one only `wall`, the others are 0. Each number is the largest
 * over all ranks, and the median over the repetitions. Times are seconds. */
typedef struct RingPass {
  double flops;     /* F, FLOP/s of a rank's block with nothing under way */
  double block;     /* what one hop computes takes that long */
  double hop;       /* what one hop moves takes that long with nothing computed */
  double transfers; /* all transfers of the pass, each as long as alone */
  double wall;      /* the whole pass */
  double exposed;   /* waited for data, or copied */
  double skew;      /* waited for ranks */
} RingPass;

typedef struct RingResult {
  int64_t local;     /* c, tokens of a rank */
  size_t message[2]; /* bytes that travel together: keys and values, their gradient */
  RingPass forward;
  RingPass backward;
} RingResult;

/* Measures; collective, every rank gets the same result. */
Status ring_measure(Rank *rank, const RingTask *task, RingResult *result, Error *error);

#endif
