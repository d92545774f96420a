/* The plan of a run against the machine that it has started on. */
#ifndef RINGGPT_TRAIN_MEMORY_CHECK_H
#define RINGGPT_TRAIN_MEMORY_CHECK_H

#include "train/grid.h"
#include "train/memory_plan.h"

/* Plans for the ranks that run on this host, and holds it against what the host
 * and its GPUs have left, before any of them has taken anything. Collective over the world. STATUS_SYSTEM
 * with one line where it does not fit (memory_refuse); else as memory_plan. */
Status memory_check(const Config *config, const Rank *rank, MemoryPurpose purpose, MemoryPlan *plan,
                    Error *error);

#endif
