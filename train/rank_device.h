/* The device of one rank: the CPU with the rank's threads, or a CUDA device. */
#ifndef RINGGPT_TRAIN_RANK_DEVICE_H
#define RINGGPT_TRAIN_RANK_DEVICE_H

#include "kernels/base/status.h"
#include "train/config.h"
#include "train/grid.h"

/* Makes rank->device as config->device says, for a rank whose `world` is there. `auto` takes CUDA where every
 * rank finds a device of that kind and something that moves its memory; where not, rank->device_note says
 * why, and it warns where the CPU computes bf16 without instructions for it. The ranks of a host take its
 * CUDA devices in turn. The operations of rank->world then move this device's memory (comm_use_device).
 * Collective over the world. STATUS_CONFIG where CUDA is asked for and not to be had, and as threads_of_rank.
 */
Status rank_device_create(const Config *config, Rank *rank, Error *error);

/* Lets the operations of rank->ring, which is split from the world, move the device's memory. Collective over
 * the ring. */
Status rank_device_join(const Config *config, Rank *rank, Error *error);

#endif
