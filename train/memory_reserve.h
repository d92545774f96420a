/* Takes the memory of a plan: all that grows with the sequence at once, so that none is taken later. */
#ifndef RINGGPT_TRAIN_MEMORY_RESERVE_H
#define RINGGPT_TRAIN_MEMORY_RESERVE_H

#include "kernels/base/status.h"
#include "model/model.h"
#include "train/config.h"
#include "train/grid.h"
#include "train/memory_plan.h"

/* Places in host memory of the arena, valid as long as the models. */
typedef struct MemoryPlaces {
  void *loader;     /* (plan.loader) for the training loader */
  void *evaluation; /* (plan.evaluation) for an evaluation, which may run while that reads ahead */
} MemoryPlaces;

/* Reserves a rank's arena for every case of its plan. `trained` and `evaluator` share the arena; one of them
 * may be NULL where no case needs it. STATUS_SYSTEM without memory. */
Status memory_reserve(const Config *config, const MemoryPlan *plan, const Rank *rank, Model *trained,
                      Model *evaluator, MemoryPlaces *places, Error *error);

#endif
