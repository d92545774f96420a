/* Whether a plan fits this machine, and what would make it fit. */
#ifndef RINGGPT_TRAIN_MEMORY_ADVICE_H
#define RINGGPT_TRAIN_MEMORY_ADVICE_H

#include "train/memory_plan.h"

/* What is there to take. SIZE_MAX: not known, and no reason to refuse. */
typedef struct MemoryMachine {
  size_t host;
  size_t gpu; /* of one GPU */
} MemoryMachine;

bool memory_fits(const MemoryPlan *plan, const MemoryMachine *machine);

/* The bytes that decide: of a GPU where a plan is for GPUs and does not fit one, else of the host. */
size_t memory_deciding(const MemoryPlan *plan, const MemoryMachine *machine);

/* A change of the configuration, or several at once. */
typedef struct MemoryChange {
  char text[160]; /* "train.recompute=true" */
  size_t bytes;   /* memory_deciding of the plan that comes of it */
  bool fits;
} MemoryChange;

#define MEMORY_CHANGES 7

/* What makes a configuration need less: bf16, recompute, chunks of the MLP and of the loss, each alone and
 * all together; and the smallest ring, over more machines of this kind, that fits, with and without them.
 * Writes *count of them to changes (MEMORY_CHANGES). Fails as memory_plan. */
Status memory_advice(const Config *config, const MemoryRun *run, const MemoryMachine *machine,
                     MemoryChange *changes, int *count, Error *error);

/* Writes bytes for people: "17.3 GiB". */
void memory_size_text(size_t bytes, char *text, size_t size);

/* One line that refuses a plan: what it needs, what there is, and what would make it fit. */
Status memory_refuse(const Config *config, const MemoryPlan *plan, const MemoryMachine *machine,
                     Error *error);

#endif
