/* The device of one rank: see the header. */
#include "train/rank_device.h"

#include <stdio.h>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/load.h"
#include "train/threads.h"

static void poll_groups(void *context) {
  const Rank *rank = context;
  comm_poll(rank->world);
  if (rank->ring != NULL && rank->ring->mover != NULL) comm_poll(rank->ring);
}

static Status create_cpu(const Config *config, Rank *rank, Error *error) {
  int threads = 0;
  if (config->train.precision != PRECISION_FP32) {
    return fail(error, STATUS_CONFIG,
                "train.precision: bf16: the CPU computes in fp32 alone; set it to fp32%s%s",
                rank->device_note[0] == '\0' ? "" : "; ", rank->device_note);
  }
  TRY(threads_of_rank(config, rank->world, &threads, &rank->crowded, error));
  return cpu_device_create(threads, &rank->device, error);
}

static Status create_cuda(const Config *config, Rank *rank, int devices, Error *error) {
  const ElementType elements = config->train.precision == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
  int local = 0;
  TRY(threads_local_rank(rank->world, &local, error));
  TRY(cuda_device_create(local % devices, elements, &rank->device, error));
  return comm_use_device(rank->world, rank->device, error);
}

/* How many CUDA devices this rank finds and can use with its transport. */
static Status count_cuda(const Comm *world, int *devices, Error *error) {
  *devices = 0;
  if (world->size > 1 && !world->table->moves_device_memory) {
    return fail(error, STATUS_CONFIG, "no CUDA device: the transport %s cannot move its memory",
                world->table->name);
  }
  return cuda_device_count(devices, error);
}

static Status create_device(const Config *config, Rank *rank, Error *error) {
  int devices = 0;
  Error missing = {0};
  if (config->device == DEVICE_KIND_CPU) return create_cpu(config, rank, error);
  const Status found = count_cuda(rank->world, &devices, &missing);
  if (config->device == DEVICE_KIND_CUDA) {
    if (found != STATUS_OK) return fail(error, found, "device: cuda: %s", missing.text);
    return create_cuda(config, rank, devices, error);
  }
  int64_t without = found == STATUS_OK ? 0 : 1;
  TRY(comm_all_reduce(rank->world, COMM_I64, COMM_SUM, &without, 1, error));
  if (without == 0) return create_cuda(config, rank, devices, error);
  (void)snprintf(rank->device_note, sizeof rank->device_note, "%s",
                 found == STATUS_OK ? "another rank has no CUDA device" : missing.text);
  return create_cpu(config, rank, error);
}

Status rank_device_create(const Config *config, Rank *rank, Error *error) {
  TRY(create_device(config, rank, error));
  rank->device->poll = poll_groups;
  rank->device->poll_context = rank;
  return STATUS_OK;
}
