/* Takes the memory of a plan: see the header. */
#include "train/memory_reserve.h"

#include "kernels/base/arena.h"
#include "kernels/comm/comm.h"
#include "model/memory.h"

Status memory_reserve(const Config *config, const MemoryPlan *plan, const Rank *rank, Model *trained,
                      Model *evaluator, MemoryPlaces *places, Error *error) {
  ModelArena *arena = model_arena(trained != NULL ? trained : evaluator);
  const size_t positions = arena_aligned(plan->positions);
  const size_t host = arena_plus(positions, arena_plus(plan->loader, plan->evaluation));
  TRY(model_arena_reserve(arena, plan->arena, host, error));
  for (int i = 0; i < plan->cases; i++) {
    const MemoryCase *at = &plan->cases_of[i];
    const Layout layout = memory_case_layout(config, &plan->run, at->length, rank->ring->size);
    TRY(model_reserve(at->training ? trained : evaluator, at->sequences, &layout, error));
  }
  places->loader = (char *)arena->host + positions;
  places->evaluation = (char *)places->loader + plan->loader;
  return STATUS_OK;
}
