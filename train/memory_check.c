/* The plan of a run against the machine that it has started on: see the header. */
#include "train/memory_check.h"

#include <string.h>

#include "kernels/base/arena.h"
#include "kernels/base/memory.h"
#include "kernels/cuda/load.h"
#include "train/memory_advice.h"
#include "train/threads.h"

/* The ranks of a host take its GPUs in turn. */
static Status ranks_of_gpu(int ranks_here, int *ranks, Error *error) {
  int devices = 0;
  TRY(cuda_device_count(&devices, error));
  *ranks = (ranks_here + devices - 1) / devices;
  return STATUS_OK;
}

static Status describe_run(const Rank *rank, MemoryPurpose purpose, MemoryRun *run, Error *error) {
  int local = 0;
  *run = (MemoryRun){.purpose = purpose,
                     .cuda = rank->device->table->queues != NULL,
                     .threads = rank->device->threads,
                     .one_process = strcmp(rank->world->table->name, "local") == 0};
  TRY(threads_local_rank(rank->world, &local, &run->ranks_here, error));
  return run->cuda ? ranks_of_gpu(run->ranks_here, &run->ranks_a_gpu, error) : STATUS_OK;
}

Status memory_check(const Config *config, const Rank *rank, MemoryPurpose purpose, MemoryPlan *plan,
                    Error *error) {
  MemoryRun run;
  TRY(describe_run(rank, purpose, &run, error));
  TRY(memory_plan(config, &run, plan, error));
  /* The programs themselves are there already. */
  const size_t programs = plan->program * (run.one_process ? 1 : (size_t)run.ranks_here);
  const MemoryMachine machine = {.host = arena_plus(memory_available(), programs),
                                 .gpu = run.cuda ? device_left(rank->device) : SIZE_MAX};
  /* None takes anything before all have seen what there is. */
  TRY(comm_barrier(rank->world, error));
  if (memory_fits(plan, &machine)) return STATUS_OK;
  return memory_refuse(config, plan, &machine, error);
}
