/* The memory of a whole run, by computation from the configuration: before anything is allocated, and for
 * configurations far beyond this machine. */
#ifndef RINGGPT_TRAIN_MEMORY_PLAN_H
#define RINGGPT_TRAIN_MEMORY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/comm/layout.h"
#include "train/config.h"

typedef enum MemoryPurpose {
  MEMORY_TRAINING,
  MEMORY_EVALUATION, /* `ringgpt eval`, at eval.contexts */
  MEMORY_TASKS       /* `ringgpt eval --task`, at eval.contexts */
} MemoryPurpose;

/* What a plan is for. */
typedef struct MemoryRun {
  MemoryPurpose purpose;
  bool cuda;        /* on GPUs; else on CPUs, whose memory is the host's */
  int ranks_here;   /* ranks on this machine */
  int ranks_a_gpu;  /* of those, ranks that share a GPU; read with cuda alone */
  int threads;      /* compute threads of a rank */
  bool one_process; /* the ranks here are threads of one process; else each is one */
} MemoryRun;

/* One form of batches: a stage of training or an evaluation. */
typedef struct MemoryCase {
  bool training;
  int64_t sequences; /* of a micro-batch */
  int64_t length;    /* tokens of each */
  size_t arena;      /* all of the following, by turns */
  size_t kept;       /* what layers keep from forward to backward */
  size_t logits;
  size_t ring; /* attention states, keys and values and their gradients, masks */
  size_t
      batch; /* host memory: the batches of its loader and the losses of an evaluation, or what tasks hold */
} MemoryCase;

/* Bytes of one rank unless it is said otherwise. */
typedef struct MemoryPlan {
  MemoryRun run;
  int64_t parameters;
  /* Of the device. */
  size_t weights;
  size_t gradients;
  size_t masters; /* of the rank's share of the weights */
  size_t moments; /* of the optimizer, of the same share */
  size_t arena;   /* of the case that needs most, for all of them */
  size_t passing; /* masters of the largest group of parameters, from all ranks, in a save */
  /* Of the host. */
  size_t positions;  /* numbers on their way to the device */
  size_t loader;     /* batches of the training stage that needs most */
  size_t evaluation; /* batches and losses of the evaluation that needs most */
  size_t copies;     /* weights and optimizer as the host reads or writes them, on every rank: at the start or
                        in a save */
  size_t saving;     /* the same on rank 0 alone */
  size_t scratch;    /* of threads and small blocks */
  size_t program;    /* of each process before it has anything of the run */

  size_t rank_device; /* peak; 0 on a CPU */
  size_t rank_host;   /* peak without `program` and `saving` */
  size_t gpu;         /* of the ranks that share a GPU; 0 on a CPU */
  size_t host;        /* of all ranks here */

  int cases;
  int largest;                                 /* the case of `arena` */
  MemoryCase cases_of[2 * CONFIG_LIST_LENGTH]; /* (cases) stages in their order, then evaluations */
} MemoryPlan;

/* Host memory of the compute threads of a rank, of the one that reads ahead and of small blocks. */
size_t memory_plan_scratch(int threads);

/* How sequences of `length` tokens are cut over a ring; tasks know no documents. */
Layout memory_case_layout(const Config *config, const MemoryRun *run, int64_t length, int ring_size);

/* Computes the plan. STATUS_SYSTEM without the little memory that the table of parameters takes,
 * STATUS_CONFIG as cpu_device_create. Sizes that do not fit 64 bits are ARENA_TOO_LARGE. */
Status memory_plan(const Config *config, const MemoryRun *run, MemoryPlan *plan, Error *error);

#endif
