/* The device of one rank: see the header. */
#include "train/rank_device.h"

#include <stdio.h>
#include <string.h>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/load.h"
#include "kernels/cuda/nccl_load.h"
#include "train/threads.h"

static void poll_groups(void *context) {
  const Rank *rank = context;
  comm_poll(rank->world);
  if (rank->ring != NULL && rank->ring->mover != NULL) comm_poll(rank->ring);
}

static ElementType elements_of(const Config *config) {
  return config->train.precision == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_F32;
}

/* Adds a warning to what may be noted already: why the device is not CUDA. */
static void note_slow_bf16(Rank *rank) {
  const size_t used = strlen(rank->device_note);
  (void)snprintf(rank->device_note + used, sizeof rank->device_note - used,
                 "%swarning: train.precision: bf16: no products by avx512_bf16 on this CPU or in this build: "
                 "no faster than fp32",
                 used == 0 ? "" : "; ");
}

static Status create_cpu(const Config *config, Rank *rank, Error *error) {
  int threads = 0;
  if (config->parallelism.transport == TRANSPORT_NCCL) {
    return fail(error, STATUS_CONFIG, "parallelism.transport: nccl is for CUDA devices, not for the CPU%s%s",
                rank->device_note[0] == '\0' ? "" : "; ", rank->device_note);
  }
  TRY(threads_of_rank(config, rank->world, &threads, &rank->crowded, error));
  TRY(cpu_device_create(threads, elements_of(config), &rank->device, error));
  if (elements_of(config) == ELEMENT_BF16 && !cpu_device_has_bf16(rank->device)) note_slow_bf16(rank);
  return STATUS_OK;
}

/* Whether the memory of devices is moved by NCCL: where the transport cannot, or where it is asked for. */
static bool needs_nccl(const Config *config, const Comm *group) {
  return group->size > 1 &&
         (config->parallelism.transport == TRANSPORT_NCCL || !group->table->moves_device_memory);
}

/* How many CUDA devices this rank finds and can use. */
static Status count_cuda(const Config *config, const Comm *world, int *devices, Error *error) {
  NcclVersion version;
  TRY(cuda_device_count(devices, error));
  return needs_nccl(config, world) ? cuda_nccl_version(&version, error) : STATUS_OK;
}

/* Lets the group move the device's memory. */
static Status join_group(const Config *config, const Rank *rank, Comm *group, Error *error) {
  if (needs_nccl(config, group)) return cuda_nccl_attach(group, rank->device, error);
  return comm_use_device(group, rank->device, error);
}

static Status name_nccl(Rank *rank, Error *error) {
  NcclVersion version;
  TRY(cuda_nccl_version(&version, error));
  (void)snprintf(rank->movers, sizeof rank->movers, "%s and %s", rank->world->table->name, version.text);
  if (version.warning != NULL) {
    (void)snprintf(rank->device_note, sizeof rank->device_note, "warning: %s: %s", version.text,
                   version.warning);
  }
  return STATUS_OK;
}

static Status create_cuda(const Config *config, Rank *rank, int devices, Error *error) {
  int local = 0;
  TRY(threads_local_rank(rank->world, &local, NULL, error));
  TRY(cuda_device_create(devices > 1 ? local % devices : 0, elements_of(config), &rank->device, error));
  TRY(join_group(config, rank, rank->world, error));
  return needs_nccl(config, rank->world) ? name_nccl(rank, error) : STATUS_OK;
}

static Status create_device(const Config *config, Rank *rank, Error *error) {
  int devices = 0;
  Error missing = {0};
  if (config->device == DEVICE_KIND_CPU) return create_cpu(config, rank, error);
  const Status found = count_cuda(config, rank->world, &devices, &missing);
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
  (void)snprintf(rank->movers, sizeof rank->movers, "%s", rank->world->table->name);
  TRY(create_device(config, rank, error));
  rank->device->poll = poll_groups;
  rank->device->poll_context = rank;
  return STATUS_OK;
}

Status rank_device_join(const Config *config, Rank *rank, Error *error) {
  if (rank->device->table->queues == NULL) return STATUS_OK;
  return join_group(config, rank, rank->ring, error);
}
